"""Health maps by domain: values as they stand in the file, and the ways to bring a 31 x 95 map to a model's size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from adcore.data.samples import select
from adcore.errors import ConfigError, DataError
from adcore.preprocess import RESIZE_METHODS, Preprocess
from adcore.registry import list_datasets, open_dataset
from adcore.request import choose_model
from PIL import Image


@pytest.fixture
def root(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    for domain, scale in (("domain_A", 0.32), ("winter", 5.0)):
        for folder, count in (("train/good", 3), ("test/good", 2), ("test/fault", 1)):
            (tmp_path / domain / folder).mkdir(parents=True)
            for i in range(count):
                values = (scale * rng.standard_normal((31, 95))).astype(np.float32)
                tifffile.imwrite(tmp_path / domain / folder / f"{i}.tiff", values)
    return tmp_path


def test_domains_of_any_name_with_their_splits_and_labels(root) -> None:
    reader = open_dataset("hdmap", str(root))
    assert reader.categories() == ["domain_A", "winter"]
    samples = reader.samples("winter")
    assert [len(select(samples, *key)) for key in (("train", 0), ("test", 0), ("test", 1))] == [3, 2, 1]
    assert {sample.mask_path for sample in samples} == {None}
    assert "hdmap" in {card.name for card in list_datasets()}


def test_float_values_are_never_clipped_and_16_bit_keeps_its_steps(root) -> None:
    reader = open_dataset("hdmap", str(root))
    sample = reader.samples("winter")[0]
    values = tifffile.imread(sample.image_path)
    assert values.min() < 0
    assert values.max() > 1
    assert np.array_equal(reader.image(sample)[0].numpy(), values)
    steps = np.arange(31 * 95, dtype=np.uint16).reshape(31, 95) * 20
    Image.fromarray(steps).save(root / "winter" / "train" / "good" / "9.png")
    decoded = reader.image(reader.samples("winter")[3])[0].numpy()
    assert np.array_equal(np.round(decoded * 65535).astype(np.uint16), steps)


def test_a_folder_that_is_not_of_the_layout_is_named(root) -> None:
    (root / "winter" / "test" / "crack").mkdir()
    (root / "winter" / "test" / "fault" / "0.tiff").rename(root / "winter" / "test" / "crack" / "0.tiff")
    with pytest.raises(DataError, match="crack"):
        open_dataset("hdmap", str(root)).samples("winter")
    with pytest.raises(DataError, match="summer"):
        open_dataset("hdmap", str(root)).samples("summer")
    with pytest.raises(DataError, match="expected DOMAIN/train/good"):
        open_dataset("hdmap", str(root / "winter" / "test")).categories()


def test_padding_leaves_the_pixels_as_they_are() -> None:
    image = torch.rand(3, 31, 95) + 1
    for method in ("black-padding", "noise-padding"):
        placed = Preprocess(size=(64, 128), resize=method)(image)
        assert torch.equal(placed[:, 16:47, 16:111], image)
    black = Preprocess(size=(64, 128), resize="black-padding")(image)
    assert black.count_nonzero() == image.numel()


def test_noise_padding_is_the_same_each_time_and_stays_in_the_images_range() -> None:
    image = torch.rand(3, 31, 95) * 0.3
    preprocess = Preprocess(size=(64, 128), resize="noise-padding")
    placed = preprocess(image)
    torch.manual_seed(5)
    assert torch.equal(preprocess(image), placed)
    assert image.min() <= placed.min()
    assert placed.max() <= image.max()
    assert placed[:, :16].std() > 0


def test_keep_aspect_fills_one_side_and_keeps_a_circle_round() -> None:
    y, x = torch.meshgrid(torch.arange(40), torch.arange(120), indexing="ij")
    disc = ((y - 20) ** 2 + (x - 60) ** 2 < 15**2).float().expand(3, -1, -1)
    placed = Preprocess(size=(96, 96), resize="keep-aspect")(disc)[0] > 0.5
    height, width = placed.any(1).sum(), placed.any(0).sum()
    assert abs(int(height) - int(width)) <= 1
    assert placed[48, 48]


@pytest.mark.parametrize("method", RESIZE_METHODS)
@pytest.mark.parametrize("shape", [(31, 95), (95, 31), (200, 90), (64, 48), (1, 300)])
def test_masks_follow_the_image(method, shape) -> None:
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[: max(1, shape[0] // 2), : shape[1] // 2] = True
    preprocess = Preprocess(size=(64, 48), crop=(60, 40), resize=method)
    placed, small = preprocess(mask.float().expand(3, -1, -1))[0], preprocess.mask(mask)
    assert placed.shape == small.shape == (60, 40)
    if method != "noise-padding":
        assert not small[placed < 0.02].any()
    assert small[placed > 0.98].all() or method == "noise-padding"


def test_an_unknown_resize_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="keep-aspect, black-padding, noise-padding"):
        choose_model("padim-resnet18", {"resize": "stretch"})
    assert choose_model("padim-resnet18", {"resize": "black_padding"}).preprocess.resize == "black-padding"
