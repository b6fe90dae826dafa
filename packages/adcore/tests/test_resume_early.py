"""A run that was stopped before its first checkpoint is started over by --resume."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import adcore
import pytest
from adcore.errors import DataError
from adcore.testing import write_tiny_mvtec
from adcore.training.callbacks import Callback

SETTINGS = {
    "model": "autoencoder", "image_size": 64, "batch_size": 2, "device": "cpu", "num_epochs": 1, "checkpoint_seconds": 1e6,
}  # fmt: skip


class Kill(Callback):
    """Copies the run's folder as a kill in the first step would leave it, and stops the run."""

    def __init__(self, folder, copy):
        self.folder, self.copy = folder, copy

    def on_step_end(self, trainer, logs):
        shutil.copytree(self.folder, self.copy)
        raise KeyboardInterrupt


def begun(data: Path, out: Path) -> Path:
    """The folder of a run that was killed in its first step."""
    with pytest.raises(KeyboardInterrupt):
        adcore.train(
            f"mvtec:{data}", "part", **SETTINGS, out=out / "run", callbacks=[Kill(out / "run", out / "killed")]
        )
    killed = out / "killed"
    assert "training_detail.log" in {path.name for path in killed.iterdir()}
    (killed / "tensorboard_logs").mkdir()
    (killed / "checkpoints").mkdir()
    (killed / "checkpoints" / "best.safetensors").write_bytes(b"of the killed run")
    return killed


def test_a_run_that_was_killed_before_its_first_checkpoint_is_started_over(tmp_path) -> None:
    data = write_tiny_mvtec(tmp_path / "data")
    out = begun(data, tmp_path)
    run = adcore.train(f"mvtec:{data}", "part", **SETTINGS, out=out, resume=True)
    assert any("no checkpoint" in note and "from the beginning" in note for note in run.summary["notes"])
    assert not (out / "checkpoints" / "best.safetensors").exists()
    assert json.loads((out / "result.json").read_text())["logged"] == []

    (out / "checkpoints" / "last.safetensors").unlink()  # a finished run is not started over
    with pytest.raises(DataError, match="not empty"):
        adcore.train(f"mvtec:{data}", "part", **SETTINGS, out=out, resume=True)


def test_resume_still_refuses_a_folder_with_anything_else(tmp_path) -> None:
    data = write_tiny_mvtec(tmp_path / "data")
    out = begun(data, tmp_path)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        adcore.train(f"mvtec:{data}", "part", **SETTINGS, out=out, resume=True)
    assert (out / "notes.txt").read_text() == "mine"
