"""A run that was stopped before its first checkpoint is started over by --resume."""

from __future__ import annotations

import json
from pathlib import Path

import adcore
import pytest
from adcore.errors import DataError
from adcore.testing import write_tiny_mvtec
from adcore.training.callbacks import Callback

SETTINGS = {
    "model": "autoencoder", "image_size": 32, "batch_size": 2, "device": "cpu", "num_epochs": 1, "checkpoint_seconds": 1e6,
}  # fmt: skip


class Killed(Callback):
    """What a killed process leaves: no cleaning up after the exception."""

    def on_step_end(self, trainer, logs):
        raise KeyboardInterrupt


def begun(data: Path, out: Path, monkeypatch) -> Path:
    """The folder of a run that was killed in its first step."""
    monkeypatch.setattr("adcore.files.shutil.rmtree", lambda *_, **__: None)
    with pytest.raises(KeyboardInterrupt):
        adcore.train(f"mvtec:{data}", "part", **SETTINGS, out=out, tensorboard=True, callbacks=[Killed()])
    monkeypatch.undo()
    assert {path.name for path in out.iterdir() if not path.name.startswith(".")} >= {"training_detail.log"}
    return out


def test_a_run_that_was_killed_before_its_first_checkpoint_is_started_over(tmp_path, monkeypatch) -> None:
    data = write_tiny_mvtec(tmp_path / "data")
    out = begun(data, tmp_path / "out", monkeypatch)
    (out / "checkpoints").mkdir()
    (out / "checkpoints" / "best.safetensors").write_bytes(b"of the killed run")
    run = adcore.train(f"mvtec:{data}", "part", **SETTINGS, out=out, resume=True)
    assert any("no checkpoint" in note and "from the beginning" in note for note in run.summary["notes"])
    whole = adcore.train(f"mvtec:{data}", "part", **SETTINGS, out=tmp_path / "whole")
    assert run.summary["losses"] == whole.summary["losses"]
    assert not (out / "checkpoints" / "best.safetensors").exists()


def test_resume_still_refuses_a_folder_with_anything_else(tmp_path, monkeypatch) -> None:
    data = write_tiny_mvtec(tmp_path / "data")
    out = begun(data, tmp_path / "out", monkeypatch)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        adcore.train(f"mvtec:{data}", "part", **SETTINGS, out=out, resume=True)
    assert (out / "notes.txt").read_text() == "mine"


def test_a_finished_run_has_nothing_to_resume_but_its_checkpoint(tmp_path) -> None:
    data = write_tiny_mvtec(tmp_path / "data")
    first = adcore.train(f"mvtec:{data}", "part", **SETTINGS, out=tmp_path / "out")
    assert json.loads((first.folder / "result.json").read_text())["logged"] == []
    (first.folder / "checkpoints" / "last.safetensors").unlink()
    with pytest.raises(DataError, match="not empty"):
        adcore.train(f"mvtec:{data}", "part", **SETTINGS, out=first.folder, resume=True)
