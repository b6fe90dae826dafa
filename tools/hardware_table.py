"""What each method needs (memory, disk, seconds) at 256 and 448 px, as the table of docs/12-scale.md.

    OMP_NUM_THREADS=1 python tools/hardware_table.py padim-resnet18 patchcore-resnet18 --device cpu

Each method fits a few images of noise for an epoch, with random weights, in a process of its own; so a table takes minutes, and
says nothing about quality. Seconds on a CPU are those of its cores together, so that other programs do not count; on a GPU they
are those of the clock. The rows of methods that are not named stay as they are. `python tools/korean_pages.py` afterwards.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "12-scale.md"
PART = re.compile(r"(<!-- hardware: begin[^\n]*-->\n).*?(<!-- hardware: end -->)", re.DOTALL)
HEAD = (
    "| method | px | RAM, MB | GPU, MB | model file, MB | fit, s per image and epoch | predict, s per image |\n"
    + "|---" * 7
    + "|\n"
)
SIZES, PREDICTED = (256, 448), 4


def measure(name: str, size: int, images: int, device: str) -> dict[str, float | None]:
    """The figures of a method, in this process."""
    import torch
    from adcore import artifact as artifacts
    from adcore.artifact import Artifact
    from adcore.registry import model_card
    from adcore.testing import fit_tiny, tiny_batches
    from adcore.training.device import peak_memory_mb, pick_device

    place = pick_device(device)
    clock = time.process_time if place.type == "cpu" else time.perf_counter
    card = model_card(name)
    size += -size % card.size_multiple
    random = {"weights": "random"} if "backbone" in card.config else {}
    began = clock()
    model, _, choice = fit_tiny(
        name, size, images, 1, device=str(place), batch_size=min(images, card.batch_size), **random
    )
    fit = (clock() - began) / images
    (batch,) = tiny_batches(
        PREDICTED, choice.preprocess.output_size, PREDICTED, seed=1, channels=choice.preprocess.channels
    )
    with torch.inference_mode():
        each = batch.images.to(place).split(1)
        model(each[0])  # the first one makes search structures
        began = clock()
        scores = [model(image).score.item() for image in each]  # reading the score waits for a GPU
        predict = (clock() - began) / len(scores)
    with tempfile.TemporaryDirectory() as folder:
        artifacts.save(Path(folder) / "model.safetensors", Artifact(model, choice.preprocess))
        disk = (Path(folder) / "model.safetensors").stat().st_size / 1e6
    memory = peak_memory_mb()
    return {
        "size": size,
        "fit": fit,
        "predict": predict,
        "disk": disk,
        "ram": memory["process"],
        "gpu": memory.get("gpu"),
    }


def row(name: str, found: dict[str, float | None]) -> str:
    """A line of the table."""
    gpu = f"{found['gpu']:.0f}" if found["gpu"] else "-"
    return (
        f"| `{name}` | {found['size']} | {found['ram']:.0f} | {gpu} | {found['disk']:.1f} | {found['fit']:.2f} | "
        f"{found['predict']:.2f} |"
    )


def write(rows: list[str]) -> None:
    """Put rows into the page, in place of those of the same method and size."""
    text = PAGE.read_text(encoding="utf-8")
    begin, end = PART.search(text).groups()
    kept = [line for line in PART.search(text)[0].splitlines() if line.startswith("| `")]
    lines = {tuple(line.split("|")[1:3]): line for line in [*kept, *rows]}
    table = HEAD + "\n".join(lines[key] for key in sorted(lines)) + "\n"
    PAGE.write_text(PART.sub(lambda _: begin + table + end, text), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)  # a process of its own
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.models[0], options.sizes[0], options.images, options.device)))
        return
    for name in options.models:
        for size in options.sizes:
            command = [sys.executable, __file__, name, "--sizes", str(size), "--images", str(options.images)]
            command += ["--device", options.device, "--one"]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
            if done.returncode:
                print(f"{name} at {size} px failed, see above", file=sys.stderr)
                continue
            line = row(name, json.loads(done.stdout.splitlines()[-1]))
            print(line, flush=True)
            write([line])


if __name__ == "__main__":
    main()
