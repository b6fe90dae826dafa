"""What a user can do wrong is one clear line with exit code 2, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
from adcore.data.image_io import read_image
from adcore.errors import DataError
from adcore.testing.tiny import SIDE, write_tiny_mvtec
from PIL import Image

MODEL = "padim-resnet18"
RANDOM = ("--set", "weights=random", "--set", f"image_size={SIDE}")  # no accuracy is looked at here


@pytest.fixture
def data(tmp_path) -> Path:
    return write_tiny_mvtec(tmp_path / "data")


@pytest.fixture
def fails(run_cli, tmp_path):
    """Run a command that must fail with one line; returns the line. The results folder must not exist afterwards."""

    def run(*arguments: object) -> str:
        code, _, err = run_cli(*arguments)
        assert code == 2, err
        assert "Traceback" not in err
        lines = [line for line in err.strip().splitlines() if line.strip()]
        assert len(lines) == 1, err
        assert not (tmp_path / "results").exists()
        return lines[0]

    return run


def train(data: Path | str, tmp_path: Path, *more: object, model: str = MODEL) -> tuple[object, ...]:
    out = tmp_path / "results" / "run"
    return ("train", model, "--data", f"mvtec:{data}", "--category", "part", "--out", out, *RANDOM, *more)


def test_missing_dataset_folder_says_the_layout(fails, tmp_path) -> None:
    line = fails(*train(tmp_path / "nowhere", tmp_path))
    assert "nowhere" in line
    assert "train/good" in line


def test_a_folder_of_another_layout_says_what_was_found(fails, tmp_path) -> None:
    (tmp_path / "data" / "holiday").mkdir(parents=True)
    assert "holiday" in fails(*train(tmp_path / "data", tmp_path))


def test_no_normal_training_image(fails, tmp_path) -> None:
    write_tiny_mvtec(tmp_path / "data", train=0)
    assert "train" in fails(*train(tmp_path / "data", tmp_path))


def test_unknown_model_suggests_the_nearest(fails, data, tmp_path) -> None:
    assert "did you mean padim" in fails(*train(data, tmp_path, model="padimm"))


def test_unknown_override_lists_the_valid_ones(fails, data, tmp_path) -> None:
    line = fails(*train(data, tmp_path, "--set", "n_featurs=5"))
    assert "did you mean n_features" in line
    assert "regularization" in line
    assert "image_size" in line


@pytest.mark.parametrize(
    "setting", ["n_features=many", "n_features=0", "epochs=0", "image_size=wide", "batch_size=1.5"]
)
def test_an_ill_typed_override_is_named(fails, data, tmp_path, setting) -> None:
    assert setting.split("=")[0] in fails(*train(data, tmp_path, "--set", setting))


def test_missing_weights_say_what_to_get(fails, data, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("adcore.backbones.resolve.find", lambda card: None)
    command = train(data, tmp_path)
    line = fails(*command[: -len(RANDOM)])
    assert "resnet18-f37072fd.pth" in line
    assert "adcore backbones verify" in line


def test_unknown_category_suggests_the_nearest(fails, data, tmp_path) -> None:
    arguments = list(train(data, tmp_path))
    arguments[arguments.index("part")] = "prat"
    assert "part" in fails(*arguments)


def test_what_pillow_warns_of_does_not_reach_the_user(run_cli, data, tmp_path, recwarn) -> None:
    path = data / "part" / "train" / "good" / "odd.tif"
    Image.new("L", (SIDE, SIDE)).save(path, compression="tiff_lzw", dpi=(72, 72))
    content = bytearray(path.read_bytes())
    struct.pack_into("<HHIHH", content, content.index(struct.pack("<HHI", 296, 3, 1)), 296, 3, 2, 2, 2)  # two units
    path.write_bytes(content)
    warnings.simplefilter("always")
    read_image(path)
    assert "too many entries" in str(recwarn.pop(UserWarning).message)  # Python code is warned as usual
    code, _, err = run_cli(*train(data, tmp_path))
    assert code == 0, err
    assert not [warning for warning in recwarn if "too many entries" in str(warning.message)]


def damage(path: Path, how: str) -> Path:
    if how == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif how == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
        path = path.with_suffix(".tiff")
        tifffile.imwrite(path, np.full((SIDE, SIDE), np.nan, np.float32))
    return path


SHOWN_BY_THE_OTHERS = pytest.mark.slow  # each damage in one folder and each folder in every run


@pytest.mark.parametrize(
    ("folder", "how"),
    [
        ("train/good", "truncated"),
        ("train/good", "nan"),
        ("test/good", "empty"),
        pytest.param("train/good", "empty", marks=SHOWN_BY_THE_OTHERS),
        pytest.param("test/good", "truncated", marks=SHOWN_BY_THE_OTHERS),
        pytest.param("test/good", "nan", marks=SHOWN_BY_THE_OTHERS),
    ],
)
def test_a_bad_image_is_named_or_skipped_and_counted(fails, run_cli, data, tmp_path, how, folder) -> None:
    bad = damage(sorted((data / "part" / folder).iterdir())[0], how)
    assert str(bad) in fails(*train(data, tmp_path))
    code, out, err = run_cli(*train(data, tmp_path, "--skip-bad"))
    assert code == 0, err
    result = json.loads((tmp_path / "results" / "run" / "result.json").read_text())
    assert [entry["path"] for entry in result["skipped"]] == [str(bad)]
    assert "skipped 1" in out


def test_an_existing_folder_is_not_overwritten_unasked(run_cli, data, tmp_path) -> None:
    assert run_cli(*train(data, tmp_path))[0] == 0
    before = (tmp_path / "results" / "run" / "model.safetensors").stat().st_mtime_ns
    code, _, err = run_cli(*train(data, tmp_path))
    assert code == 2
    assert "--overwrite" in err
    assert (tmp_path / "results" / "run" / "model.safetensors").stat().st_mtime_ns == before
    assert run_cli(*train(data, tmp_path, "--overwrite"))[0] == 0
    assert (tmp_path / "results" / "run" / "model.safetensors").stat().st_mtime_ns > before


def test_evaluate_and_predict_refuse_what_is_no_artifact(run_cli, data, tmp_path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\x80\x04rubbish")
    for command in (
        ("evaluate", tmp_path / "model.safetensors", "--data", f"mvtec:{data}", "--category", "part"),
        ("predict", tmp_path / "model.safetensors", data),
    ):
        code, _, err = run_cli(*command)
        assert code == 2
        assert "pickle" in err


@pytest.mark.parametrize("wrong", [("--category", "bricks"), ("--model", "padimm")])
def test_a_demo_that_fails_leaves_no_images(fails, tmp_path, wrong) -> None:
    pytest.importorskip("skimage", reason="the demo's photographs come with scikit-image")
    fails("demo", *wrong, "--out", tmp_path / "results" / "demo")


def test_an_evaluation_that_cannot_be_written_leaves_nothing(fails, run_cli, data, tmp_path, monkeypatch) -> None:
    assert run_cli("train", MODEL, "--data", f"mvtec:{data}", "--out", tmp_path / "trained", *RANDOM)[0] == 0

    def full(*_: object) -> None:
        raise DataError("no space left")

    monkeypatch.setattr("adcore.run_results.write_page", full)
    line = fails("evaluate", tmp_path / "trained", "--data", f"mvtec:{data}", "--out", tmp_path / "results" / "run")
    assert "no space left" in line


def test_debug_shows_the_traceback(run_cli, tmp_path) -> None:
    with pytest.raises(DataError):
        run_cli(*train(tmp_path / "nowhere", tmp_path), "--debug")


# a run that says when it has trained, and waits to be interrupted
PAUSING = """
import time
from adcore.training.trainer import Trainer
fit = Trainer.run
def fit_and_wait(self, *arguments, **more):
    fit(self, *arguments, **more)
    print("PAUSED", flush=True)
    time.sleep(60)
Trainer.run = fit_and_wait
from adcore.cli import main
main()
"""


def test_ctrl_c_leaves_nothing_behind(data, tmp_path) -> None:
    command = [sys.executable, "-c", PAUSING, *map(str, train(data, tmp_path))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        paused = any("PAUSED" in line for line in process.stdout)
        begun = (tmp_path / "results" / "run" / "training_detail.log").exists()
        os.kill(process.pid, signal.SIGINT)
        err = process.stderr.read()
    assert paused, err
    assert begun
    assert process.returncode == 130, err
    assert "interrupted" in err
    assert not (tmp_path / "results").exists()
