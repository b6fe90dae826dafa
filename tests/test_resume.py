"""kill -9 in the middle of a real run, then --resume: the same final files as an undisturbed run."""

from __future__ import annotations

import json
import time
from pathlib import Path

import warm
from adcore.testing import write_tiny_mvtec
from safetensors.torch import load_file

# a run that stops while it writes its fifth checkpoint, half of it, says so, and waits to be killed
PAUSING = """
import sys, time
import safetensors.torch
write, written = safetensors.torch.save_file, 0
def write_or_wait(tensors, path, **more):
    global written
    written += 1
    write(tensors, path, **more)
    if written == 5:
        with open(path, "r+b") as file:
            file.truncate(1000)
        open("PAUSED", "w").close()
        time.sleep(600)
safetensors.torch.save_file = write_or_wait
from adcore.cli import main
main()
"""
SETTINGS = ("weights=random", "image_size=32", "layers=layer1", "checkpoint_seconds=0", "batch_size=2")


def command(out: str, *more: str) -> list[str]:
    """The arguments of a training."""
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    data = ["--data", "mvtec:data", "--category", "part"]
    return ["train", "stfpm-resnet18", *data, "--epochs", "3", "--out", out, *settings, *more]


def train(folder: Path, out: str, *more: str) -> None:
    status, output = warm.run(["adcore", *command(out, *more)], folder)
    assert status == 0, output


def test_a_killed_run_resumes_to_the_same_result(tmp_path) -> None:
    write_tiny_mvtec(tmp_path / "data", train=8)
    train(tmp_path, "whole")

    (tmp_path / "pausing.py").write_text(PAUSING)
    process, deadline = warm.start(["pausing.py", *command("killed")], tmp_path), time.monotonic() + 300
    while not (tmp_path / "PAUSED").exists():
        assert process.is_alive(), (tmp_path / warm.OUTPUT).read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.join()
    assert list((tmp_path / "killed").rglob(".*.tmp*")), "it was to be killed while it wrote"

    train(tmp_path, "killed", "--resume")
    assert "resumed at epoch" in (tmp_path / "killed" / "training_detail.log").read_text()
    whole, resumed = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("whole", "killed"))
    for key in ("test", "threshold", "losses", "history"):
        assert whole[key] == resumed[key], key
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert all((first[key] == second[key]).all() for key in first)
    assert not list((tmp_path / "killed").rglob(".*.tmp*"))  # what the kill left half-written is gone
