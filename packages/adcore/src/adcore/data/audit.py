"""Problems of the training images of a run, reported in its notes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path

from adcore.data.samples import Sample
from adcore.files import sha256_file

HEAD = 1 << 16  # bytes compared before whole files are


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
    """Training images whose content is that of one of the others; only files of equal size and beginning are read whole."""
    known: dict[tuple[int, str], list[Path]] = defaultdict(list)
    for sample in others:
        if key := _key(sample.image_path):
            known[key].append(sample.image_path)
    shared = []
    for sample in train:
        twins = known.get(_key(sample.image_path), [])
        if twins and sha256_file(sample.image_path) in {sha256_file(twin) for twin in twins}:
            shared.append(sample.image_path)
    return shared


def _key(path: Path) -> tuple[int, str] | None:
    """Size and digest of the beginning; None for a file that cannot be opened, which reading reports."""
    try:
        if not path.is_file():
            return None
        with open(path, "rb") as file:
            return path.stat().st_size, sha256(file.read(HEAD)).hexdigest()
    except OSError:
        return None


def _count(items: Sequence[object], what: str) -> str:
    return f"1 {what} is" if len(items) == 1 else f"{len(items)} {what}s are"


def _names(paths: Iterable[Path]) -> str:
    names = [str(path) for path in paths]
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
