"""Memory of `adcore predict --out` over many images, and its files after `kill -9` and `--resume`: figures of docs/12-scale.md.

    python tools/many_images.py --count 20000
    python tools/many_images.py --count 20000 --workers 2 --full-size

The images are links to a few small PNGs; the model is an autoencoder as it begins, at 32 px. Peak memory is the command's
VmHWM, which Linux has; with workers it is that of the process that writes.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from adcore import artifact as artifacts
from adcore.artifact import Artifact
from adcore.preprocess import Preprocess
from adcore.registry import create_model
from PIL import Image

DIFFERENT, SIZE = 8, (48, 64, 3)
SETTLED = 500  # rows after which memory should not grow any more


def make_inputs(folder: Path, count: int) -> tuple[Path, Path]:
    """A model file and a folder of `count` links to a few images, below `folder`."""
    generator = np.random.default_rng(0)
    (folder / "real").mkdir()
    for number in range(DIFFERENT):
        Image.fromarray(generator.integers(0, 255, SIZE, np.uint8)).save(folder / "real" / f"{number}.png")
    for number in range(count):
        link = folder / "images" / f"{number // 1000:03}" / f"{number:06}.png"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(folder / "real" / f"{number % DIFFERENT}.png")
    model = create_model("autoencoder")
    model.fitted = True
    artifacts.save(folder / "model.safetensors", Artifact(model, Preprocess((32, 32))))
    return folder / "model.safetensors", folder / "images"


def predict(command: list[str], kill_after: int | None = None) -> tuple[int, dict[int, float]]:
    """The rows that the command printed, and its peak memory in MB by rows; it is killed after `kill_after` rows."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peaks, rows = {}, 0
    for line in process.stdout:
        rows += line.rstrip().endswith(".png")
        if rows % SETTLED == 0 and rows not in peaks and rows:
            peaks[rows] = peak_mb(process.pid)
        if rows == kill_after:
            process.kill()
    if process.wait() and kill_after is None:
        sys.exit(f"{' '.join(command)} ended with exit code {process.returncode}")
    return rows, peaks


def peak_mb(pid: int) -> float:
    """The highest memory that a process has had, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1000


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file below `folder`."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--full-size", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model, images = make_inputs(Path(folder), options.count)
        command = [sys.executable, "-m", "adcore", "predict", str(model), str(images), "--device", "cpu"]
        command += ["--workers", str(options.workers), *(["--full-size"] if options.full_size else []), "--out"]
        began = time.perf_counter()
        calm, peaks = predict([*command, f"{folder}/calm"])
        seconds = time.perf_counter() - began
        print(f"{calm} images in {seconds:.0f} s; peak MB by rows: {peaks}", flush=True)
        if SETTLED in peaks:
            print(f"peak grew by {max(peaks.values()) / peaks[SETTLED] - 1:.1%} after {SETTLED}", flush=True)
        killed, _ = predict([*command, f"{folder}/killed"], kill_after=options.count // 2)
        resumed, _ = predict([*command, f"{folder}/killed", "--resume"])
        same = digests(Path(folder, "calm")) == digests(Path(folder, "killed"))
        print(f"killed after {killed} rows, {resumed} more with --resume; the same files: {same}")


if __name__ == "__main__":
    main()
