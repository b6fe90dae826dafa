"""Downloading weights: the only place of adcore that uses the network, and only when a user asked for it."""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from adcore.backbones.digests import expected_digest
from adcore.cards import BackboneCard
from adcore.errors import WeightsError
from adcore.files import atomic_path, sha256_file
from adcore.settings import settings, user_backbone_dir

TIMEOUT = 60  # seconds without an answer


def pull(card: BackboneCard, folder: str | Path | None = None) -> Path:
    """Download the weights that `card.hub` names (an URL) and return their path.

    They go to `folder`, the configured backbone_dir, or the user's own, under the name that `resolve` looks for; a file
    that is there already and right is kept. Raises WeightsError of one line when the card names no download, there is no
    network, or the content's sha256 is not the promised one; then nothing is left behind.
    """
    if not card.hub or "://" not in card.hub:
        raise WeightsError(f"there is no download for backbone '{card.name}'; get it from {card.source}")
    name = card.hub.rpartition("/")[2]
    if name not in card.filenames:
        raise WeightsError(f"the card of '{card.name}' is wrong: its download {name} is not among its file names")
    path = Path(folder or settings().backbone_dir or user_backbone_dir()) / name
    if path.is_file() and _is_right(card, path, path.name):
        return path
    try:
        with atomic_path(path) as temporary:
            with urlopen(card.hub, timeout=TIMEOUT) as answer, open(temporary, "wb") as file:
                shutil.copyfileobj(answer, file, 1 << 20)
                promised = answer.headers.get("Content-Length")
            if promised and temporary.stat().st_size != int(promised):
                raise WeightsError(
                    f"the download of {card.hub} broke off after {temporary.stat().st_size} of {promised} bytes; try again"
                )
            if not _is_right(card, temporary, name):
                raise WeightsError(
                    f"{card.hub} gave a file with sha256 {sha256_file(temporary)[:16]}..., expected "
                    f"{expected_digest(card, path)}; nothing was kept"
                )
    except (URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise WeightsError(
            f"cannot download {card.hub}: {reason}; get it on a connected machine and put it into {path.parent}, "
            f"or pack it there: adcore backbones pack {name} --name {card.name} --out DIR"
        ) from None
    return path


def _is_right(card: BackboneCard, path: Path, name: str) -> bool:
    expected = expected_digest(card, Path(name))
    return expected is None or sha256_file(path).startswith(expected)
