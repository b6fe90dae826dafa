"""kill -9 in the middle of a real run, then --resume: the same final files as an undisturbed run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from adcore.testing import write_tiny_mvtec
from safetensors.torch import load_file

SETTINGS = ("weights=random", "image_size=64", "checkpoint_seconds=0", "batch_size=2")


def command(data: Path, out: Path, *more: str) -> list[str]:
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    base = [sys.executable, "-c", "from adcore.cli import main; main()", "train", "stfpm-resnet18"]
    return [
        *base,
        "--data",
        f"mvtec:{data}",
        "--category",
        "part",
        "--epochs",
        "6",
        "--out",
        str(out),
        *settings,
        *more,
    ]


def test_a_killed_run_resumes_to_the_same_result(tmp_path) -> None:
    data = write_tiny_mvtec(tmp_path / "data", train=8)
    subprocess.run(command(data, tmp_path / "whole"), check=True, capture_output=True)

    process = subprocess.Popen(command(data, tmp_path / "killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoint = tmp_path / "killed" / "checkpoints" / "last.safetensors"
    written = 0
    first = None
    while process.poll() is None and written < 4:  # some steps into the fit
        stamp = checkpoint.stat().st_mtime_ns if checkpoint.is_file() else None
        written, first = written + (stamp is not None and stamp != first), stamp
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    if (tmp_path / "killed" / "result.json").is_file():
        pytest.skip("the run was over before the kill")

    subprocess.run(command(data, tmp_path / "killed", "--resume"), check=True, capture_output=True)
    assert "resumed at epoch" in (tmp_path / "killed" / "training_detail.log").read_text()
    whole, resumed = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("whole", "killed"))
    for key in ("test", "threshold", "losses", "history"):
        assert whole[key] == resumed[key], key
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert all((first[key] == second[key]).all() for key in first)
    assert not list((tmp_path / "killed").rglob(".*.tmp*"))  # what the kill left half-written is gone
