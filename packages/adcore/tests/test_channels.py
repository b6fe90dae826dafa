"""Images of one and of many channels, a value range, and what else belongs to a sample, from file to model and back."""

from __future__ import annotations

from pathlib import Path

import adcore
import numpy as np
import pytest
import tifffile
import torch
from adcore.data.dataset import ImageDataset, collate
from adcore.data.image_io import image_from_array, read_image
from adcore.data.samples import DatasetReader, Sample
from adcore.errors import ConfigError, DataError
from adcore.preprocess import Preprocess
from adcore.request import choose_model
from PIL import Image


def write_stack(root: Path, channels: int, top: float = 1.0) -> Path:
    """Six training and four test images of `channels` float channels up to `top`, in MVTec layout."""
    generator = np.random.default_rng(0)
    for number in range(10):
        folder = root / "part" / ("train/good" if number < 6 else "test/good" if number < 8 else "test/spot")
        folder.mkdir(parents=True, exist_ok=True)
        values = generator.uniform(0, top, (64, 64, channels)).astype(np.float32)
        if folder.name == "spot":
            values[20:40, 20:40, -1] = 3 * top
        tifffile.imwrite(folder / f"{number}.tiff", values, photometric="minisblack", planarconfig="contig")
    return root


def test_a_tiff_of_five_channels_is_trained_on_and_predicted(tmp_path) -> None:
    data = write_stack(tmp_path / "data", channels=5)
    file = data / "part" / "test" / "spot" / "8.tiff"
    assert torch.equal(read_image(file, 5), torch.from_numpy(tifffile.imread(file)).permute(2, 0, 1))
    options = {"channels": 5, "width": 4, "loss": "mse", "image_size": 64, "num_epochs": 1}
    run = adcore.train(f"mvtec:{data}", "part", "autoencoder", out=tmp_path / "run", **options)
    model = adcore.load(run.artifact)
    assert model.preprocess.channels == 5
    stored = next(row["score"] for row in run.predictions if row["path"] == str(file))
    assert model.predict(file).score == stored
    assert model.predict(tifffile.imread(file)).score == stored


def test_another_number_of_channels_than_the_models_is_one_clear_line(tmp_path) -> None:
    data = write_stack(tmp_path / "data", channels=5)
    file = data / "part" / "test" / "spot" / "8.tiff"
    with pytest.raises(DataError, match=r"8\.tiff.*5 channels"):
        read_image(file)
    with pytest.raises(ConfigError, match="patchcore takes images of 3 channels"):
        choose_model("patchcore", {"channels": 1})
    with pytest.raises(ConfigError, match="normalization has 3 channels"):
        choose_model("autoencoder", {"channels": 5, "normalization": "imagenet"})


def test_gray_stays_gray_and_colours_become_their_luma(tmp_path) -> None:
    gray = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(gray).save(tmp_path / "gray.png")
    one = read_image(tmp_path / "gray.png", channels=1)
    assert one.shape == (1, 8, 8)
    assert torch.equal(read_image(tmp_path / "gray.png"), one.expand(3, -1, -1))
    colours = np.zeros((8, 8, 3), np.uint8)
    colours[..., 1] = 255
    torch.testing.assert_close(image_from_array(colours, channels=1), torch.full((1, 8, 8), 0.587))


def test_value_range_maps_its_ends_to_zero_and_one() -> None:
    image = torch.tensor([0.0, 0.025, 0.05, 0.1]).reshape(1, 2, 2).expand(3, -1, -1)
    scaled = Preprocess(size=(2, 2), value_range=(0.0, 0.05))(image)
    torch.testing.assert_close(scaled[0].flatten(), torch.tensor([0.0, 0.5, 1.0, 2.0]))  # beyond it: not clamped


def test_value_range_is_a_setting_and_stays_in_the_model(tmp_path) -> None:
    data = write_stack(tmp_path / "data", channels=3, top=0.05)
    options = {"width": 4, "image_size": 64, "num_epochs": 1, "value_range": [0, 0.05]}
    run = adcore.train(f"mvtec:{data}", "part", "autoencoder", out=tmp_path / "run", **options)
    assert adcore.load(run.artifact).preprocess.value_range == (0.0, 0.05)
    for wrong in ("x", [1, 0], [1], 5):
        with pytest.raises(ConfigError, match="value_range"):
            choose_model("autoencoder", {"value_range": wrong})


class Prompted(DatasetReader):
    """Each image with its prompt, and with what the reader makes of it."""

    def extra(self, sample: Sample) -> dict:
        return {**sample.extra, "name": sample.image_path.stem}


def test_a_batch_carries_categories_and_what_the_reader_adds(tmp_path) -> None:
    for name in "ab":
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / f"{name}.png")
    samples = [
        Sample(tmp_path / "a.png", "train", 0, "screw", extra={"prompt": "a screw"}),
        Sample(tmp_path / "b.png", "train", 0, "nut"),
    ]
    batch = collate(list(ImageDataset(samples, Prompted(tmp_path), Preprocess(size=(4, 4)))))
    assert batch.categories == ["screw", "nut"]
    assert batch.extra == {"name": ["a", "b"], "prompt": ["a screw", None]}
    assert batch.to("cpu").extra == batch.extra
