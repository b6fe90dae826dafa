"""Value ranges by domain: what stands in the log, and what is warned of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from adcore.data.value_ranges import MEASURED, ValueRange, range_notes, value_ranges
from adcore.registry import open_dataset


def write(root: Path, domain: str, part: str, images: list[np.ndarray]) -> None:
    (root / domain / part).mkdir(parents=True)
    for i, image in enumerate(images):
        tifffile.imwrite(root / domain / part / f"{i:02}.tiff", image.astype(np.float32))


@pytest.fixture
def root(tmp_path) -> Path:
    """Training images from 0 to 0.5, test images from 0 to 255, one of which cannot be read."""
    ramp = np.linspace(0, 0.5, 64).reshape(8, 8)
    write(tmp_path, "cold", "train/good", [ramp] * (2 * MEASURED))
    write(tmp_path, "cold", "test/good", [510 * ramp] * 2)
    write(tmp_path, "cold", "test/fault", [510 * ramp])
    (tmp_path / "cold" / "test" / "fault" / "00.tiff").write_bytes(b"no image")
    return tmp_path


def test_a_log_shows_the_range_of_each_domain_and_split_and_a_warning(root) -> None:
    reader = open_dataset("hdmap", str(root))
    ranges = value_ranges(reader, reader.samples("cold"))
    assert sorted(one.line for one in ranges) == [
        "values test cold: min 0 max 255 mean 127.5 NaN 0 (2 of 3 images, 1 unreadable)",
        f"values train cold: min 0 max 0.5 mean 0.25 NaN 0 ({MEASURED} of {2 * MEASURED} images)",
    ]
    (note,) = range_notes(ranges, ranges)
    assert "test images of cold (0 to 255, mean 127.5)" in note
    assert "training images (0 to 0.5, mean 0.25)" in note


def test_values_that_a_reader_lets_pass_are_counted_as_nan(root, monkeypatch) -> None:
    import torch

    reader = open_dataset("hdmap", str(root))
    values = torch.tensor([[[0.25, torch.nan], [0.75, torch.inf]]])
    monkeypatch.setattr(reader, "image", lambda sample: values)
    (train,) = [one for one in value_ranges(reader, reader.samples("cold")) if one.split == "train"]
    assert (train.low, train.high, train.mean, train.nan) == (0.25, 0.75, 0.5, 2 * MEASURED)
    monkeypatch.setattr(reader, "image", lambda sample: values * torch.nan)
    empty = value_ranges(reader, reader.samples("cold"))
    assert empty[0].line.startswith(f"values {empty[0].split} cold: none NaN ")
    assert range_notes(empty, empty) == []


def known(split: str, domain: str, low: float, high: float, mean: float) -> ValueRange:
    return ValueRange(split, domain, 8, 8, low, high, mean, 0)


TRAIN = [known("train", "cold", 0, 0.5, 0.25), known("train", "hot", 10, 20, 15)]


@pytest.mark.parametrize(
    ("one", "warned"),
    [
        (known("test", "cold", 0, 0.6, 0.3), False),
        (known("test", "cold", 0, 90, 0.45), False),  # a few bright defects
        (known("test", "cold", 10, 20, 15), True),  # its own training images count, not those of another domain
        (known("test", "hot", 10, 20, 15), False),
        (known("test", "new", 1, 9, 3), False),  # never trained on: within all training images
        (known("test", "new", 100, 200, 150), True),
        (known("val", "cold", 0.4, 0.5, 0.45), True),  # the mean of the training images lies below
        (known("train", "cold", 100, 200, 150), False),
    ],
)
def test_a_warning_is_for_ranges_whose_means_lie_outside_the_other(one, warned) -> None:
    assert bool(range_notes(TRAIN, [one])) == warned
