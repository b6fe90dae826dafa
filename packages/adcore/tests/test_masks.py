"""Masks mean one region, however they are stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from adcore.data.image_io import read_mask
from PIL import Image

RNG = np.random.default_rng(0)


def save_gray(path: Path, values: np.ndarray, dtype: type = np.uint8, **options: int) -> Path:
    Image.fromarray(values.astype(dtype)).save(path, **options)
    return path


REGION = np.zeros((16, 20), bool)
REGION[4:9, 5:14] = True


@pytest.mark.parametrize(
    ("high", "dtype"),
    [(255, np.uint8), (1, np.uint8), (7, np.uint8), (65535, np.uint16), (1, np.uint16), (255, np.uint16)],
)
def test_any_way_of_writing_two_levels(tmp_path: Path, high: int, dtype: type) -> None:
    path = save_gray(tmp_path / "m.png", REGION * high, dtype)
    assert torch.equal(read_mask(path), torch.from_numpy(REGION))


def test_one_bit_mask(tmp_path: Path) -> None:
    Image.fromarray(REGION).save(tmp_path / "m.png")
    assert torch.equal(read_mask(tmp_path / "m.png"), torch.from_numpy(REGION))
    tifffile.imwrite(tmp_path / "m.tif", REGION)
    assert torch.equal(read_mask(tmp_path / "m.tif"), torch.from_numpy(REGION))


def test_class_numbers_count_as_anomalous(tmp_path: Path) -> None:
    classes = REGION * RNG.integers(1, 9, REGION.shape)
    assert torch.equal(read_mask(save_gray(tmp_path / "m.png", classes)), torch.from_numpy(REGION))


@pytest.mark.parametrize("black_first", [True, False])
def test_palette_masks_go_by_colour_not_by_index(tmp_path: Path, black_first: bool) -> None:
    image = Image.fromarray((black_first == REGION).astype(np.uint8), mode="P")
    image.putpalette([0, 0, 0, 64, 0, 0] if black_first else [64, 0, 0, 0, 0, 0])
    image.save(tmp_path / "m.png")
    assert torch.equal(read_mask(tmp_path / "m.png"), torch.from_numpy(REGION))


def test_jpeg_noise_does_not_grow_the_region(tmp_path: Path) -> None:
    path = save_gray(tmp_path / "m.jpg", REGION * 255, quality=30)
    stored = np.asarray(Image.open(path))
    assert ((stored > 0) & ~REGION).sum() > 10, "the file must be noisy for this test to mean anything"
    assert torch.equal(read_mask(path), torch.from_numpy(REGION))
    empty = RNG.integers(0, 7, (16, 20))
    assert not read_mask(save_gray(tmp_path / "empty.jpg", empty)).any()


def test_soft_edges_of_a_resized_mask_do_not_grow_the_region(tmp_path: Path) -> None:
    soft = Image.fromarray(REGION.astype(np.uint8) * 255).resize((60, 48), Image.Resampling.BICUBIC)
    soft.save(tmp_path / "m.png")
    area = read_mask(tmp_path / "m.png").sum().item()
    assert abs(area - 9 * REGION.sum()) <= 6  # its area times 3 x 3
    assert (np.asarray(soft) > 0).sum() > area + 50


def test_coloured_and_float_masks(tmp_path: Path) -> None:
    red = np.zeros((16, 20, 4), np.uint8)
    red[REGION, 0] = 255
    red[..., 3] = 255  # an opaque alpha is not a mark
    Image.fromarray(red).save(tmp_path / "m.png")
    assert torch.equal(read_mask(tmp_path / "m.png"), torch.from_numpy(REGION))
    tifffile.imwrite(tmp_path / "m.tif", np.where(REGION, 0.9, 0.2).astype(np.float32))
    assert torch.equal(read_mask(tmp_path / "m.tif"), torch.from_numpy(REGION))


def test_real_masks_are_binary_already(real_data: Path) -> None:
    paths = sorted((real_data / "mvtec/hazelnut/ground_truth/colour").iterdir())[:5]
    assert paths
    for path in [*paths, *sorted((real_data / "visa/macaroni1/Data/Masks/Anomaly").iterdir())[:5]]:
        with Image.open(path) as image:
            assert torch.equal(read_mask(path), torch.from_numpy(np.asarray(image) > 0))
            assert read_mask(path).any()
