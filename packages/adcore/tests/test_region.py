"""A fixed region of the original images: what is outside is not seen, drawn or measured; positions are the original's."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import adcore
import numpy as np
import pytest
import tifffile
import torch
from adcore.artifact import load
from adcore.errors import ConfigError
from adcore.evaluation.gallery import gallery
from adcore.evaluation.score import ScoredImage, Scoring
from adcore.preprocess import Preprocess
from adcore.request import choose_model
from PIL import Image

REGION = (30, 10, 64, 32)  # x, y, width, height


def write_parts(root: Path, size: tuple[int, int] = (60, 100)) -> Path:
    """Six training and three test images in MVTec layout; a defect in the region, and changing light outside of it."""
    generator = np.random.default_rng(0)
    for number in range(9):
        kind = "train/good" if number < 6 else "test/good" if number < 8 else "test/spot"
        values = generator.integers(90, 110, (*size, 3), np.uint8)
        values[:, : REGION[0]] = generator.integers(0, 255)
        mask = np.zeros(size, np.uint8)
        if kind == "test/spot":
            values[20:30, 40:54], mask[20:30, 40:54] = 250, 255
            (root / "part/ground_truth/spot").mkdir(parents=True)
            Image.fromarray(mask).save(root / f"part/ground_truth/spot/{number}_mask.png")
        (root / "part" / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(root / "part" / kind / f"{number}.png")
    return root


TRAIN = ("--category", "part", "--epochs", 1, "--set", "loss=mse", "--set", "width=4", "--set", "image_size=32x64")


def test_a_region_is_kept_in_the_model_and_all_results_are_in_original_pixels(run_cli, tmp_path) -> None:
    data, run = write_parts(tmp_path / "data"), tmp_path / "run"
    region = ",".join(map(str, REGION))
    given = ("train", "autoencoder", "--data", f"mvtec:{data}", *TRAIN, "--set", f"region={region}", "--out", run)
    assert run_cli(*given)[0] == 0
    assert load(run / "model.safetensors").preprocess.region == REGION
    rows = json.loads((run / "result.json").read_text(encoding="utf-8"))
    assert rows["preprocess"]["region"] == list(REGION)

    image, out = data / "part/test/spot/8.png", tmp_path / "out"
    highest = adcore.load(run / "model.safetensors").predict(image).anomaly_map.max()
    options = ("--regions", "--pixel-threshold", highest / 2, "--full-size", "--out", out)
    assert run_cli("predict", run / "model.safetensors", image, *options)[0] == 0
    with open(out / "regions.csv", newline="", encoding="utf-8") as file:
        found = next(csv.DictReader(file))
    box = [int(found[key]) for key in ("x", "y", "width", "height")]
    assert box == pytest.approx([40, 20, 14, 10], abs=3)  # one pixel of the map is one of the image
    full = tifffile.imread(out / "maps/8.png.tiff")
    assert full.shape == (60, 100)
    assert np.isfinite(full[10:42, 30:94]).all()
    assert np.isfinite(full).sum() == 32 * 64  # the region alone
    assert full[22:28, 42:52].min() > highest / 2
    drawn = np.asarray(Image.open(out / "overlays/8.png.png")).astype(int)
    assert drawn.shape == (60, 100, 3)
    outside = np.ones(drawn.shape[:2], bool)
    outside[10:42, 30:94] = False
    assert np.ptp(drawn[outside], axis=1).max() == 0  # gray
    assert np.ptp(drawn[22:28, 42:52], axis=2).min() > 20


@pytest.mark.parametrize("wrong", ["10,20,30", "a,b,c,d", "0,0,0,10", "-1,0,5,5", "1.5,0,5,5", "0,0,99999,5"])
def test_what_is_no_region_is_refused_before_anything_starts(wrong) -> None:
    with pytest.raises(ConfigError, match="region"):
        choose_model("autoencoder", {"region": wrong.split(",")})


def test_an_image_that_does_not_hold_the_region_is_one_line(run_cli, tmp_path) -> None:
    data = write_parts(tmp_path / "data")
    given = ("train", "autoencoder", "--data", f"mvtec:{data}", *TRAIN, "--out", tmp_path / "run")
    code, _, output = run_cli(*given, "--set", "region=60,0,50,20")
    assert code == 2
    assert "region 60,0,50,20 (x,y,width,height) reaches beyond the image of 100x60 px" in output
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_the_mask_is_cut_with_the_image() -> None:
    preprocess = Preprocess((32, 64), region=REGION)
    mask = torch.zeros(60, 100, dtype=torch.bool)
    mask[20:30, 40:54] = True
    small = preprocess.mask(mask)
    assert small.shape == (32, 64)
    assert small[10:20, 10:24].all()
    assert small.sum() == 140


def test_the_page_shows_original_pixels(tmp_path) -> None:
    from adcore.data.samples import Sample

    one = ScoredImage(Sample(tmp_path / "a.png", "test", 0, ""), 1.0, None, None, size=(60, 100))
    (row,) = gallery(Scoring([one]), None, Preprocess((16, 24), region=REGION))
    assert row["to_pixel"] == [64, 30, 32, 10]  # the photo's corner is the region's
