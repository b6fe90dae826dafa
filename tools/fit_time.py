"""Seconds and peak memory of PatchCore's fit by number of images: figures of docs/12-scale.md.

    OMP_NUM_THREADS=1 python tools/fit_time.py --counts 200 800 3200 12800 --ratio 0.01 --max-memory 1GB

Each row is added to the file `--out` once measured, and what it has is left out: a command that was ended goes on where it
stopped. EfficientNet-Lite0 at 256 px; the images are 100 textures, repeated with small shifts. Each count is a training of
its own. `processor` are the seconds of all cores for the whole command, `fit` those of the clock for the fit.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

SIDE, DIFFERENT = 256, 100
HEAD = "| images | ratio | max_memory | processor, s | fit, s | peak, MB |\n" + "|---" * 6 + "|\n"


def write_images(root: Path, count: int) -> None:
    """A category `part` in MVTec's layout: `count` training images, and four of the same kind to test."""
    for number in range(count + 4):
        generator = np.random.default_rng(number % DIFFERENT)
        coarse = Image.fromarray(generator.integers(0, 255, (24, 24, 3), np.uint8))
        shift = np.random.default_rng(10**6 + number).integers(-4, 5, 2)
        texture = np.roll(np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC)), shift, (0, 1))
        path = root / "part" / ("train/good" if number < count else "test/good") / f"{number:06}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(texture).save(path)
    (root / "part" / "test" / "spot").mkdir()
    Image.fromarray(255 - texture).save(root / "part" / "test" / "spot" / "0.png")


def row_of(count: int, ratio: float, max_memory: str) -> str:
    """How the row of a fit begins."""
    return f"| {count} | {ratio:.1%} | {max_memory} | "


def measure(count: int, ratio: float, max_memory: str, device: str) -> str:
    """The measured cells of a row."""
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder) / "data", count)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        settings = [f"coreset_ratio={ratio}", f"max_memory={max_memory}", "image_size=256"]
        command = [sys.executable, "-m", "adcore", "train", "patchcore-efficientnet-lite0", "--device", device]
        command += ["--data", f"mvtec:{folder}/data", "--category", "part", "--out", f"{folder}/run"]
        command += [word for setting in settings for word in ("--set", setting)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = json.loads((Path(folder) / "run" / "result.json").read_text(encoding="utf-8"))
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    memory, fit = result["peak_memory_mb"]["process"], result["timings"]["fit_seconds"]
    return f"{processor:.0f} | {fit:.0f} | {memory:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[200, 800, 3200])
    parser.add_argument("--ratio", type=float, default=0.01)
    parser.add_argument("--max-memory", default="auto")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("fit_time.md"))
    options = parser.parse_args()
    if not options.out.exists():
        options.out.write_text(HEAD, encoding="utf-8")
    for count in options.counts:
        begin = row_of(count, options.ratio, options.max_memory)
        lines = options.out.read_text(encoding="utf-8").splitlines()
        line = next((line for line in lines if line.startswith(begin)), None)
        if line is None:
            line = begin + measure(count, options.ratio, options.max_memory, options.device)
            with open(options.out, "a", encoding="utf-8") as file:
                print(line, file=file)
        print(line, flush=True)


if __name__ == "__main__":
    main()
