"""`adcore threshold`: another threshold for a trained model in a new file, and the old file as it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import adcore
import pytest
from adcore.files import sha256_file
from adcore.testing.tiny import SIDE, write_tiny_mvtec

SETTINGS = {"weights": "random", "image_size": SIDE}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_tiny_mvtec(tmp_path_factory.mktemp("data"), train=24, normal=12)


@pytest.fixture(scope="module")
def model(data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    return adcore.train(f"mvtec:{data}", "part", "padim-resnet18", out=out, device="cpu", **SETTINGS).artifact


def test_a_threshold_from_normal_images(model, data, tmp_path, run_cli) -> None:
    before, out = sha256_file(model), tmp_path / "new.safetensors"
    arguments = ("threshold", model, "--method", "conformal:0.1", "--data", f"mvtec:{data}", "--out", out)
    code, printed, err = run_cli(*arguments)
    assert code == 0, err
    assert "conformal:0.1 on test images" in printed
    assert "at most 0.1 of normal images" in printed
    assert "of 12 normal flagged" in printed
    changed = adcore.load(out)
    assert changed.artifact.calibration["threshold"]["false_alarm_rate"] == 0.1
    assert changed.artifact.threshold != adcore.load(model).artifact.threshold
    assert sha256_file(model) == before
    image = next((data / "part" / "test" / "good").iterdir())
    assert changed.predict(image).score == adcore.load(model).predict(image).score
    code, _, err = run_cli(*arguments)
    assert (code, "exists already" in err) == (2, True)
    code, printed, _ = run_cli("info", out)
    assert code == 0
    assert f"{changed.artifact.threshold:.6g} (conformal:0.1, chosen on test images)" in printed
    assert "mvtec part, 24 normal images, seed 42" in printed
    assert "padim-resnet18 (adm-memory 0.1.0)" in printed
    assert json.loads(run_cli("info", out, "--json")[1])["calibration"]["threshold"]["normal_images"] == 12
    code, printed, _ = run_cli(*arguments, "--overwrite", "--json")
    assert json.loads(printed)["threshold"]["value"] == changed.artifact.threshold


def test_a_value_of_ones_own(model, tmp_path, run_cli) -> None:
    code, printed, err = run_cli("threshold", model.parent, "--value", "12.5", "--out", tmp_path / "new.safetensors")
    assert code == 0, err
    assert printed.startswith("threshold 12.5 (given), before ")
    assert adcore.load(tmp_path / "new.safetensors").artifact.threshold == 12.5


def test_three_answers_are_stored_and_given(model, data, tmp_path, run_cli) -> None:
    folder = data / "part" / "test" / "spot"
    before = json.loads(run_cli("predict", model, folder, "--json")[1])["predictions"]
    assert "verdict" not in before[0]
    low, _, high = sorted(row["score"] for row in before)
    out = tmp_path / "new.safetensors"
    code, printed, err = run_cli(
        "threshold", model, "--review-band", f"{low + 1e-6 * abs(low)!r},{high!r}", "--out", out
    )
    assert code == 0, err
    assert "to be looked at" in printed
    changed = adcore.load(out)
    assert changed.threshold == adcore.load(model).threshold
    rows = json.loads(run_cli("predict", out, folder, "--json")[1])["predictions"]
    assert [row["verdict"] for row in sorted(rows, key=lambda row: row["score"])] == ["good", "review", "bad"]
    assert [changed.predict(row["path"]).verdict for row in rows] == [row["verdict"] for row in rows]
    assert "good below" in run_cli("info", out)[1]
    code, _, err = run_cli("threshold", model, "--review-band", "2,1", "--out", tmp_path / "other.safetensors")
    assert code == 2
    assert "lower one first" in err
    assert not (tmp_path / "other.safetensors").exists()


def test_each_category_can_have_a_threshold_of_its_own(model, data, tmp_path, run_cli) -> None:
    shutil.copytree(data / "part", tmp_path / "two" / "a")
    write_tiny_mvtec(tmp_path / "two", "b", normal=4, anomalous=2)
    out = tmp_path / "new.safetensors"
    given = ("--data", f"mvtec:{tmp_path / 'two'}", "--category", "all")
    code, printed, err = run_cli("threshold", model, "--method", "quantile:0.5", *given, "--out", out)
    assert code == 0, err
    assert printed.startswith("a: threshold ")
    changed, own = adcore.load(out), adcore.load(out).artifact.calibration["categories"]
    assert changed.threshold == adcore.load(model).threshold
    assert (own["a"]["normal_images"], own["b"]["normal_images"]) == (12, 4)
    assert adcore.load(out, category="b").threshold == own["b"]["value"] != own["a"]["value"]
    image = next((data / "part" / "test" / "good").iterdir())
    row = json.loads(run_cli("predict", out, image, "--category", "b", "--json")[1])["predictions"][0]
    assert row["predicted"] == int(row["score"] >= own["b"]["value"])
    code, _, err = run_cli("predict", out, image, "--category", "c")
    assert code == 2
    assert "it has some for a, b" in err
    assert "adcore threshold --category all" in run_cli("predict", model, image, "--category", "c")[2]
    code, printed, err = run_cli("evaluate", out, *given[:3], "b", "--out", tmp_path / "evaluated", "--json")
    assert code == 0, err
    assert json.loads(printed)["threshold"]["value"] == own["b"]["value"]
    code, printed, err = run_cli("evaluate", out, *given[:2], "--pooled", "--out", tmp_path / "pooled")
    assert code == 0, err
    assert "at the common threshold; with --category they are decided at that of their category, of a, b" in printed


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--value", "nan"), "finite"),
        (("--value", "1e50"), "finite"),
        (
            ("--method", "conformal:0.01", "--data", "DATA"),
            "needs 99 normal images to choose the threshold on, there are 12",
        ),
        (("--method", "conformal:7", "--data", "DATA"), "between 0 and 1"),
        (("--method", "best", "--data", "DATA"), "valid ones: f1_percentile"),
        (("--method", "youden"), "belong together"),
        ((), "give --method with --data, or --value"),
    ],
)
def test_bad_requests_are_one_line_and_write_nothing(model, data, tmp_path, run_cli, arguments, says) -> None:
    given = [f"mvtec:{data}" if one == "DATA" else one for one in arguments]
    code, _, err = run_cli("threshold", model, *given, "--out", tmp_path / "new.safetensors")
    assert code == 2
    assert says in err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_the_model_itself_is_never_written(model, run_cli) -> None:
    before = sha256_file(model)
    code, _, err = run_cli("threshold", model, "--value", "1", "--out", model, "--overwrite")
    assert (code, "stays as it is" in err) == (2, True)
    assert sha256_file(model) == before


def test_training_refuses_a_promise_that_the_images_cannot_carry_before_it_starts(data, tmp_path, run_cli) -> None:
    out = tmp_path / "run"
    settings = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
    command = ["train", "padim-resnet18", "--data", f"mvtec:{data}", "--out", out, *settings, "--val-ratio", "0.5"]
    code, _, err = run_cli(*command, "--threshold", "conformal:0.01")
    assert (code, "needs 99 normal images" in err, out.exists()) == (2, True, False)
    code, _, err = run_cli(*command, "--threshold", "conformal:0.1")
    assert code == 0, err
    result = json.loads((out / "result.json").read_text())
    assert result["threshold"]["normal_images"] == 12
    assert [row["method"] for row in result["thresholds"]][:2] == ["conformal:0.1", "f1_percentile"]
    used = result["thresholds"][0]
    assert used["false_alarms"] + used["passed"] == 12
    assert used["misses"] + used["found"] == 3
