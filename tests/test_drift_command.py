"""`adcore drift`: images of a folder against the statistics that a model keeps of its calibration images."""

from __future__ import annotations

import json
import os
from pathlib import Path

import adcore
import numpy as np
import pytest
from adcore.artifact import load, save
from adcore.testing.tiny import SIDE, tiny_images, write_tiny_mvtec
from PIL import Image


def write_images(folder: Path, factor: float, start: int, count: int) -> Path:
    folder.mkdir(exist_ok=True)
    images = tiny_images(count, (SIDE, SIDE), start=start).permute(0, 2, 3, 1).numpy() * factor * 255
    for number, image in enumerate(images, start):
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / f"{number:03}.png")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    data = write_tiny_mvtec(root, train=40, normal=1, anomalous=1)
    settings = {"weights": "random", "image_size": SIDE, "val_ratio": 0.9, "device": "cpu"}
    return adcore.train(f"mvtec:{data}", "part", "padim-resnet18", out=root / "run", **settings).artifact


def test_a_change_of_light_is_named_and_like_images_raise_nothing(model, tmp_path, run_cli) -> None:
    stored = load(model).calibration["statistics"]
    assert {len(values) for values in stored.values()} == {36}
    folder = write_images(tmp_path / "in", 1.0, 200, 10)
    code, printed, err = run_cli("drift", model, folder)
    assert code == 0, err
    assert printed.startswith("10 images by name against 36 of the calibration, 0.01 false alarms")
    assert "DRIFT" not in printed
    write_images(folder, 1.4, 210, 14)
    code, printed, err = run_cli("drift", model, folder, "--alpha", "0.1")
    assert code == 0, err
    assert f"{folder}{os.sep}2" in printed
    assert "brightness is higher than in the calibration images" in printed
    for place, path in enumerate(sorted(folder.iterdir(), reverse=True)):
        os.utime(path, (place, place))  # the last comes first
    found = json.loads(run_cli("drift", model, folder, "--alpha", "0.1", "--order", "time", "--json")[1])
    alarm = next(one for one in found["alarms"] if one["statistic"] == "brightness")
    assert alarm["image"] <= 14
    assert alarm["path"] == str(folder / f"{224 - alarm['image']}.png")
    assert (found["images"], found["calibration_images"], found["drift"]) == (24, 36, True)


def test_what_cannot_be_tested_is_one_line(model, tmp_path, run_cli) -> None:
    artifact = load(model)
    del artifact.calibration["statistics"]
    save(tmp_path / "old.safetensors", artifact)
    folder = write_images(tmp_path / "in", 1.0, 200, 2)
    code, _, err = run_cli("drift", tmp_path / "old.safetensors", folder)
    assert (code, err.count("\n")) == (2, 1)
    assert "train it again" in err
    code, _, err = run_cli("drift", model, folder, "--alpha", "1")
    assert (code, "between 0 and 1" in err) == (2, True)
    (folder / "bad.png").write_bytes(b"no image")
    code, _, err = run_cli("drift", model, folder)
    assert (code, "bad.png" in err) == (2, True)
    code, printed, err = run_cli("drift", model, folder, "--skip-bad")
    assert (code, "skipped" in err) == (0, True)
    assert printed.startswith("2 images")


def test_a_new_threshold_keeps_the_statistics_or_brings_its_own(model, tmp_path, run_cli) -> None:
    before = load(model).calibration["statistics"]
    assert run_cli("threshold", model, "--value", "3", "--out", tmp_path / "given.safetensors")[0] == 0
    assert load(tmp_path / "given.safetensors").calibration["statistics"] == before
    data = write_tiny_mvtec(tmp_path / "data", normal=5)
    arguments = ("--method", "normal_p95", "--data", f"mvtec:{data}", "--out", tmp_path / "new.safetensors")
    assert run_cli("threshold", model, *arguments)[0] == 0
    assert len(load(tmp_path / "new.safetensors").calibration["statistics"]["score"]) == 5
