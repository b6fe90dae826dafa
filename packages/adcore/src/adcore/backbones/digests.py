"""What the sha256 of a weights file must be."""

from __future__ import annotations

import re
from pathlib import Path

from adcore.cards import BackboneCard


def expected_digest(card: BackboneCard, path: Path) -> str | None:
    """The sha256, or its first digits, that a file of this name must have; None when nothing is known."""
    if path.name in card.sha256:
        return card.sha256[path.name]
    stamped = re.search(r"-([0-9a-f]{8,64})\.(?:pth|pt|safetensors)$", path.name)
    return stamped.group(1) if stamped else None
