"""`adcore update`: normal images added to a trained model, in a new folder, and the old model as it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import adcore
import pytest
from adcore.files import sha256_file
from adcore.testing.tiny import SIDE, write_tiny_mvtec

SETTINGS = {"weights": "random", "image_size": SIDE, "device": "cpu"}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_tiny_mvtec(tmp_path_factory.mktemp("data"), normal=10, anomalous=4)


@pytest.fixture(scope="module")
def model(data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    return adcore.train(f"mvtec:{data}", "part", "patchcore-resnet18", out=out, **SETTINGS).artifact


@pytest.fixture(scope="module")
def folder(data, tmp_path_factory) -> Path:
    """Images with a square that someone calls normal, of which one is a test image."""
    added = tmp_path_factory.mktemp("added") / "good"
    added.mkdir()
    other = write_tiny_mvtec(added.parent / "other", train=30, anomalous=2)
    for path in (*(other / "part/test/spot").iterdir(), data / "part/test/spot/016.png"):
        shutil.copy(path, added / path.name)
    return added


def test_before_and_after_are_measured_on_images_that_were_not_added(model, data, folder, tmp_path, run_cli) -> None:
    before, out = sha256_file(model), tmp_path / "new"
    given = ("--add-normal", folder, "--data", f"mvtec:{data}", "--val-ratio", "0.5", "--out", out)
    code, printed, err = run_cli("update", model, *given, "--json")
    assert code == 0, err
    found = json.loads(printed)
    assert found["added"] == 3
    assert found["logged"]["entries_after"] > found["logged"]["entries_before"]
    first, again, after = found["rows"]
    assert [row["model"] for row in found["rows"]] == ["before", "before, threshold chosen anew", "after"]
    assert first["threshold"] == adcore.load(model).threshold
    assert first["image_auroc"] == again["image_auroc"] == 1
    assert {row["false_alarms"] + row["passed"] for row in found["rows"]} == {5}
    assert {row["misses"] + row["found"] for row in found["rows"]} == {1}  # of 3, two choose the threshold
    assert "1 test images are among those added" in found["notes"][0]
    assert sha256_file(model) == before
    changed = adcore.load(out)
    assert (changed.threshold, changed.artifact.training["added_images"]) == (after["threshold"], 3)
    assert changed.artifact.calibration["threshold"]["source"] == "val"
    assert len(changed.artifact.calibration["statistics"]["score"]) == 5
    shown = next(folder.iterdir())
    assert changed.predict(shown).score < adcore.load(model).predict(shown).score  # a square is less unusual now
    assert "3 normal images added afterwards" in run_cli("info", out / "model.safetensors")[1]
    result = json.loads((out / "result.json").read_text())
    assert result["update"]["rows"] == found["rows"]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "before, threshold chosen anew: image AUROC 1.0000" in page
    assert run_cli("update", model, *given)[0] == 2  # the folder has results


def test_without_data_the_threshold_stays_and_says_so(model, folder, tmp_path, run_cli) -> None:
    code, printed, err = run_cli("update", model, "--add-normal", folder, "--out", tmp_path / "new")
    assert code == 0, err
    assert "as before" in printed
    changed, old = adcore.load(tmp_path / "new").artifact, adcore.load(model).artifact
    assert changed.threshold == old.threshold
    assert "chosen before 3 normal images were added" in changed.calibration["threshold"]["note"]
    assert set(old.calibration["statistics"]) - set(changed.calibration["statistics"]) == {"score", "distance"}
    assert [path.name for path in (tmp_path / "new").iterdir() if not path.name.startswith(".")] == [
        "model.safetensors"
    ]


def test_a_model_of_tiles_gets_all_tiles_of_each_image(data, folder, tmp_path, run_cli) -> None:
    settings = {**SETTINGS, "tile": 32, "coreset_ratio": 1.0}
    model = adcore.train(f"mvtec:{data}", "part", "patchcore-resnet18", out=tmp_path / "run", **settings).artifact
    given = ("--add-normal", folder, "--out", tmp_path / "new", "--json")
    code, printed, err = run_cli("update", model, *given)
    assert code == 0, err
    found = json.loads(printed)
    assert found["logged"]["entries_after"] / found["logged"]["entries_before"] == (6 + 3) / 6  # images


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--add-normal", "PARENT", "--out", "OUT"), "holds a folder bad"),
        (("--add-normal", "NONE", "--out", "OUT"), "does not exist"),
        (("--add-normal", "FOLDER", "--out", "MODEL"), "stays as it is"),
        (("--add-normal", "FOLDER", "--out", "OUT", "--method", "youden"), "need --data"),
        (("--add-normal", "FOLDER", "--out", "OUT", "--data", "DATA", "--method", "conformal:0.01"), "needs 99 normal"),
        (("--add-normal", "FOLDER"), "--out is needed"),
    ],
)
def test_bad_requests_are_one_line_and_write_nothing(model, data, folder, tmp_path, run_cli, arguments, says) -> None:
    (tmp_path / "parent" / "bad").mkdir(parents=True)
    known = {"PARENT": tmp_path / "parent", "NONE": tmp_path / "none", "FOLDER": folder, "OUT": tmp_path / "out"}
    known |= {"MODEL": model.parent, "DATA": f"mvtec:{data}"}
    before = sha256_file(model)
    code, _, err = run_cli("update", model, *(known.get(one, one) for one in arguments))
    assert code == 2
    assert says in err.splitlines()[-1]
    assert not (tmp_path / "out").exists()
    assert sha256_file(model) == before
