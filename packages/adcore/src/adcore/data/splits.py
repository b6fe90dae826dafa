"""Validation splits that depend on the seed and the samples alone, not on their order or the machine."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Literal

from adcore.data.samples import NORMAL, Sample
from adcore.errors import ConfigError, DataError

SplitMode = Literal["none", "from_train", "from_test", "test"]


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2**63) for one purpose ("order", 42, epoch 3): equal everywhere, unrelated between purposes."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(sha256(text.encode()).digest()[:8], "big") >> 1


def split_validation(samples: Sequence[Sample], mode: SplitMode, ratio: float, seed: int) -> list[Sample]:
    """The samples, in their order, with a share `ratio` of train or of test now of split "val".

    Taken from each category and label on its own, so that proportions stay; at least one of each, and never the last
    one. Raises ConfigError for a mode or ratio that makes no sense, DataError where there is too little to split.
    """
    if mode == "none":
        return list(samples)
    if mode == "test":  # all test images validate; the other domains are tested
        return [replace(sample, split="val") if sample.split == "test" else sample for sample in samples]
    if mode not in ("from_train", "from_test"):
        raise ConfigError(f"val_split '{mode}' is not known; valid ones: none, from_train, from_test")
    if not 0 < ratio < 1:
        raise ConfigError(f"val_ratio must be above 0 and below 1, not {ratio}")
    if any(sample.split == "val" for sample in samples):
        raise ConfigError(f"the dataset has validation images of its own; use them with val_split none, not {mode}")
    source = mode.removeprefix("from_")
    groups: dict[tuple[str, int], list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.split == source:
            groups[sample.category, sample.label].append(sample)
    chosen: set[Sample] = set()
    for (category, label), group in groups.items():
        count = min(max(round(ratio * len(group)), 1), len(group) - 1)
        chosen.update(_drawn(group, seed, "val", category, label)[:count])
    if not chosen:
        count = sum(len(group) for group in groups.values())
        raise DataError(f"cannot take validation images from {count} {source} images; add images or use val_split none")
    return [replace(sample, split="val") if sample in chosen else sample for sample in samples]


def draw_shots(samples: Sequence[Sample], shots: int, seed: int) -> tuple[list[Sample], str]:
    """The samples with `shots` normal training images of each category, drawn by the seed, and a note; the rest is left out.

    With one seed, fewer shots are a part of more. Raises ConfigError below 1, DataError where a category has fewer.
    """
    if isinstance(shots, bool) or not isinstance(shots, int) or shots < 1:
        raise ConfigError(f"shots must be a whole number of at least 1, not {shots!r}")
    groups = _normal_training_images(samples)
    drawn: set[Sample] = set()
    for category, group in groups.items():
        if len(group) < shots:
            raise DataError(f"shots={shots}: category '{category}' has {len(group)} normal training images")
        drawn.update(_drawn(group, seed, "shots", category)[:shots])
    kept = [sample for sample in samples if sample.split != "train" or sample.label != NORMAL or sample in drawn]
    return kept, f"few shots: {len(drawn)} of {sum(map(len, groups.values()))} normal training images are used"


def fold_count(calibration: str) -> int:
    """5 for "cv:5"; ConfigError for another text, or fewer than two folds."""
    kind, _, number = calibration.partition(":")
    if kind != "cv" or not number.isdecimal() or int(number) < 2:
        raise ConfigError(f"calibration={calibration}: write cv:K with the number of folds, at least 2, such as cv:5")
    return int(number)


def cross_folds(samples: Sequence[Sample], folds: int, seed: int) -> list[list[Sample]]:
    """The normal training images in `folds` parts, drawn by the seed, with as many of each category as can be.

    DataError where there are fewer images than folds.
    """
    parts: list[list[Sample]] = [[] for _ in range(folds)]
    dealt = 0
    for category, group in sorted(_normal_training_images(samples).items()):
        for sample in _drawn(group, seed, "fold", category):
            parts[dealt % folds].append(sample)
            dealt += 1
    if dealt < folds:
        raise DataError(f"calibration=cv:{folds}: there are {dealt} normal training images, fewer than folds")
    return parts


def _normal_training_images(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    """Them by category."""
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.split == "train" and sample.label == NORMAL:
            groups[sample.category].append(sample)
    return groups


def _drawn(group: Sequence[Sample], *parts: int | str) -> list[Sample]:
    """`group` in an order that depends on the names of its images and the seed that `parts` derive."""
    ranked = sorted(group, key=lambda sample: sample.image_path)
    keys = {sample: derive_seed(*parts, rank) for rank, sample in enumerate(ranked)}
    return sorted(ranked, key=keys.__getitem__)
