"""Validation splits: right shares, stable choice, never an empty training set."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from adcore.data.samples import Sample
from adcore.data.splits import derive_seed, draw_shots, split_validation
from adcore.errors import ConfigError, DataError
from hypothesis import given
from hypothesis import strategies as st


def samples_of(
    train: int = 0, normal: int = 0, anomalous: int = 0, category: str = "nut", root: str = "/d"
) -> list[Sample]:
    """Samples that look like an MVTec category."""
    kinds = [("train", 0, "good", train), ("test", 0, "good", normal), ("test", 1, "cut", anomalous)]
    return [
        Sample(Path(root, category, split, defect, f"{i:04}.png"), split, label, category, defect)
        for split, label, defect, count in kinds
        for i in range(count)
    ]


def counts(samples: list[Sample]) -> Counter:
    return Counter((sample.split, sample.label) for sample in samples)


def validation(samples: list[Sample]) -> set[str]:
    return {Path(*sample.image_path.parts[-3:]).as_posix() for sample in samples if sample.split == "val"}


def test_none_changes_nothing() -> None:
    samples = samples_of(3, 2, 2)
    assert split_validation(samples, "none", 0.5, 0) == samples


def test_from_train() -> None:
    samples = samples_of(100, 10, 10)
    split = split_validation(samples, "from_train", 0.1, 0)
    assert counts(split) == {("train", 0): 90, ("val", 0): 10, ("test", 0): 10, ("test", 1): 10}
    assert [replace(sample, split="") for sample in split] == [replace(sample, split="") for sample in samples]


def test_from_test_keeps_the_shares_of_normal_and_anomalous() -> None:
    split = split_validation(samples_of(5, 40, 10), "from_test", 0.5, 0)
    assert counts(split) == {("train", 0): 5, ("val", 0): 20, ("val", 1): 5, ("test", 0): 20, ("test", 1): 5}


def test_every_category_gets_its_share() -> None:
    samples = samples_of(10, category="nut") + samples_of(20, category="lid")
    split = split_validation(samples, "from_train", 0.2, 0)
    assert Counter(s.category for s in split if s.split == "val") == {"nut": 2, "lid": 4}


@given(
    st.integers(2, 40),
    st.integers(1, 20),
    st.integers(1, 20),
    st.floats(0.01, 0.99),
    st.integers(0, 2**40),
    st.sampled_from(["from_train", "from_test"]),
    st.randoms(),
)
def test_properties(
    train: int, normal: int, anomalous: int, ratio: float, seed: int, mode: str, shuffle: random.Random
) -> None:
    samples = samples_of(train, normal, anomalous)
    try:
        split = split_validation(samples, mode, ratio, seed)
    except DataError:
        assert mode == "from_test"
        assert (normal, anomalous) == (1, 1)  # one of each: nothing can be taken without emptying test
        return
    after = counts(split)
    assert after["train", 0] >= 1
    assert after["test", 0] >= 1
    assert after["test", 1] >= 1
    assert sum(after.values()) == len(samples)
    taken = {"from_train": [(train, 0)], "from_test": [(normal, 0), (anomalous, 1)]}[mode]
    for count, label in taken:
        assert abs(after["val", label] - ratio * count) <= 1
    mixed = samples[:]
    shuffle.shuffle(mixed)
    assert validation(split_validation(mixed, mode, ratio, seed)) == validation(split)
    elsewhere = samples_of(train, normal, anomalous, root="/another/place")
    assert validation(split_validation(elsewhere, mode, ratio, seed)) == validation(split)


def test_seeds_differ_and_are_the_same_everywhere() -> None:
    chosen = {seed: validation(split_validation(samples_of(50), "from_train", 0.1, seed)) for seed in range(20)}
    assert len({frozenset(names) for names in chosen.values()}) == 20
    assert len(set().union(*chosen.values())) > 35  # over the seeds every image gets its turn
    assert derive_seed("order", 42, 3) == 582405970966756542  # a changed number would reorder everybody's runs


def test_what_cannot_be_split() -> None:
    with pytest.raises(DataError, match="1 train images"):
        split_validation(samples_of(1, 5, 5), "from_train", 0.5, 0)
    with pytest.raises(DataError, match="0 test images"):
        split_validation(samples_of(10), "from_test", 0.5, 0)
    with pytest.raises(ConfigError, match="from_train"):
        split_validation(samples_of(10), "from_nowhere", 0.5, 0)
    for ratio in (0.0, 1.0, -1.0, 1.5):
        with pytest.raises(ConfigError, match="val_ratio"):
            split_validation(samples_of(10), "from_train", ratio, 0)
    own = [*samples_of(10), *split_validation(samples_of(4, category="lid"), "from_train", 0.5, 0)]
    with pytest.raises(ConfigError, match="validation images of its own"):
        split_validation(own, "from_train", 0.5, 0)


def trained(samples: list[Sample]) -> set[Path]:
    return {sample.image_path for sample in samples if sample.split == "train"}


@given(st.integers(1, 12), st.integers(0, 3), st.randoms(use_true_random=False))
def test_shots_are_drawn_from_each_category_by_the_seed_alone(shots, seed, shuffler) -> None:
    samples = [*samples_of(12, 2, 1), *samples_of(20, 1, 1, category="bolt")]
    few, note = draw_shots(samples, shots, seed)
    assert Counter(s.category for s in few if s.split == "train") == {"nut": shots, "bolt": shots}
    assert [s for s in few if s.split == "test"] == [s for s in samples if s.split == "test"]
    assert note == f"few shots: {2 * shots} of 32 normal training images are used"
    shuffled = shuffler.sample(samples, len(samples))
    assert trained(draw_shots(shuffled, shots, seed)[0]) == trained(few)
    assert trained(few) <= trained(draw_shots(samples, min(shots + 1, 12), seed)[0]), "fewer shots are a part of more"


def test_shots_that_there_are_not() -> None:
    assert trained(draw_shots(samples_of(20), 5, 0)[0]) != trained(draw_shots(samples_of(20), 5, 1)[0])
    with pytest.raises(DataError, match="shots=4: category 'nut' has 3 normal training images"):
        draw_shots(samples_of(3), 4, 0)
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(ConfigError, match="whole number of at least 1"):
            draw_shots(samples_of(3), wrong, 0)
