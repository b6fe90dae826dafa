"""Problems of the training images of a run, reported in its notes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from filecmp import cmp
from pathlib import Path

from adcore.data.samples import Sample

BEGINNING = 4096  # bytes


def training_notes(samples: Sequence[Sample], supervised: bool) -> list[str]:
    """One line for each problem: training images that are labelled anomalous, or that are validation or test images as well."""
    notes, train = [], [sample for sample in samples if sample.split == "train"]
    labelled = [sample for sample in train if sample.label]
    if labelled and not supervised:
        notes.append(
            f"{_count(labelled, 'training image')} labelled anomalous and left out: {_names(s.image_path for s in labelled)}"
        )
    others = [sample for sample in samples if sample.split != "train"]
    for kind, chosen in (("normal", [s for s in others if not s.label]), ("anomalous", [s for s in others if s.label])):
        shared = _same_files(train, chosen)
        if shared:
            where = "images that validate or test"
            notes.append(
                f"{_count(shared, 'training image')} also among the {kind} {where}, so that results are too good: "
                f"{_names(shared)}"
            )
    return notes


def _same_files(train: Iterable[Sample], others: Iterable[Sample]) -> list[Path]:
    """Training images whose content is that of one of the others; only files of a size that both sides have are opened."""
    ours, theirs = _sizes(train), _sizes(others)
    common = set(ours.values()) & set(theirs.values())
    known: dict[bytes, list[Path]] = defaultdict(list)
    for path, size in theirs.items():
        if size in common and (head := _beginning(path)):
            known[head].append(path)
    return [
        path
        for path, size in ours.items()
        if size in common and any(cmp(path, twin, shallow=False) for twin in known.get(_beginning(path), ()))
    ]


def _sizes(samples: Iterable[Sample]) -> dict[Path, int]:
    return {s.image_path: s.image_path.stat().st_size for s in samples if s.image_path.is_file()}


def _beginning(path: Path) -> bytes:
    """The first bytes; none of a file that cannot be read, which its reader reports."""
    try:
        with open(path, "rb") as file:
            return file.read(BEGINNING)
    except OSError:
        return b""


def _count(items: Sequence[object], what: str) -> str:
    return f"1 {what} is" if len(items) == 1 else f"{len(items)} {what}s are"


def _names(paths: Iterable[Path]) -> str:
    names = [str(path) for path in paths]
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
