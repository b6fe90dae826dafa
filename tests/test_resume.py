"""kill -9 in the middle of a real run, then --resume: the same final files as an undisturbed run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from adcore.testing import write_tiny_mvtec
from safetensors.torch import load_file

# a run that stops while it writes its fifth checkpoint, half of it, says so, and waits to be killed
PAUSING = """
import time
import safetensors.torch
write, written = safetensors.torch.save_file, 0
def write_or_wait(tensors, path, **more):
    global written
    written += 1
    write(tensors, path, **more)
    if written == 5:
        with open(path, "r+b") as file:
            file.truncate(1000)
        print("PAUSED", flush=True)
        time.sleep(60)
safetensors.torch.save_file = write_or_wait
"""
SETTINGS = ("weights=random", "image_size=64", "checkpoint_seconds=0", "batch_size=2")


def command(data: Path, out: Path, *more: str, before: str = "") -> list[str]:
    """The command line of a training; `before` is code that its process runs first."""
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    base = [sys.executable, "-c", f"{before}\nfrom adcore.cli import main; main()", "train", "stfpm-resnet18"]
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

    pausing = command(data, tmp_path / "killed", before=PAUSING)
    with subprocess.Popen(pausing, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        paused = any("PAUSED" in line for line in process.stdout)
        process.kill()
    assert paused
    assert list((tmp_path / "killed").rglob(".*.tmp*")), "it was to be killed while it wrote"

    subprocess.run(command(data, tmp_path / "killed", "--resume"), check=True, capture_output=True)
    assert "resumed at epoch" in (tmp_path / "killed" / "training_detail.log").read_text()
    whole, resumed = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("whole", "killed"))
    for key in ("test", "threshold", "losses", "history"):
        assert whole[key] == resumed[key], key
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert all((first[key] == second[key]).all() for key in first)
    assert not list((tmp_path / "killed").rglob(".*.tmp*"))  # what the kill left half-written is gone
