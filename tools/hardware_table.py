"""What each method needs (memory, disk, seconds) at 256 and 448 px, as the table of docs/12-scale.md.

    OMP_NUM_THREADS=1 python tools/hardware_table.py --all --jobs 2 --device cpu
    OMP_NUM_THREADS=1 python tools/hardware_table.py padim-resnet18 patchcore-resnet18 --device cpu

`--all` measures one card of each method, and leaves out what the table has: a command that was ended goes on where it stopped.
Methods that are named are measured again; the rows of others stay as they are. `python tools/korean_pages.py` afterwards.

Each method fits a few images of noise for an epoch, with random weights, in a process of its own; so a table takes minutes, and
says nothing about quality. Seconds on a CPU are those of its cores together, so that other programs do not count; on a GPU they
are those of the clock.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from adcore.registry import list_models, model_card

PAGE = Path(__file__).parent.parent / "docs" / "12-scale.md"
PART = re.compile(r"(<!-- hardware: begin[^\n]*-->\n).*?(<!-- hardware: end -->)", re.DOTALL)
HEAD = (
    "| method | px | RAM, MB | GPU, MB | model file, MB | fit, s per image and epoch | predict, s per image |\n"
    + "|---" * 7
    + "|\n"
)
SIZES, PREDICTED = (256, 448), 4
SMALL = "-efficientnet-lite0"  # the card of a method that --all measures, where there is one
OTHERS = ("efficientad-small", "autoencoder", "ganomaly", "draem", "draem-sevnet", "dsr", "inp-former")
OTHERS += ("dinomaly-small-448", "dinomaly-gem", "dinomaly-focal", "dinomaly-aux", "dinomaly-scale", "dinomaly2")
SETTINGS = {"efficientad-small": {"teacher": "random"}}
page = threading.Lock()


def measure(name: str, size: int, images: int, device: str) -> dict[str, float | None]:
    """The figures of a method, in this process."""
    import torch
    from adcore import artifact as artifacts
    from adcore.artifact import Artifact
    from adcore.model import BatchModel
    from adcore.registry import create_model
    from adcore.request import choose_model
    from adcore.testing import fit_tiny, tiny_batches
    from adcore.training.device import peak_memory_mb, pick_device

    place = pick_device(device)
    clock = time.process_time if place.type == "cpu" else time.perf_counter
    card = model_card(name)
    size = fitting(name, size)
    settings: dict[str, Any] = {"weights": "random"} if "backbone" in card.config else {}
    settings |= SETTINGS.get(name, {})
    fit = disk = None
    if card.training == "none":
        choice = choose_model(name, {"image_size": size, **settings})
        model = create_model(name, **choice.config).to(place).eval()
        model.fitted = True
    else:
        began, batch = clock(), min(images, card.batch_size)
        model, _, choice = fit_tiny(name, size, images, 1, device=str(place), batch_size=batch, **settings)
        fit = (clock() - began) / images
        with tempfile.TemporaryDirectory() as folder:
            artifacts.save(Path(folder) / "model.safetensors", Artifact(model, choice.preprocess))
            disk = (Path(folder) / "model.safetensors").stat().st_size / 1e6
    view = choice.preprocess
    (batch,) = tiny_batches(PREDICTED, view.output_size, PREDICTED, seed=1, channels=view.channels)
    with torch.inference_mode():
        each = batch.images.to(place)
        if isinstance(model, BatchModel):
            began = clock()
            scores = [found.score.item() for found in model.score_all(each)]
        else:
            model(each[:1])  # the first one makes search structures
            began = clock()
            scores = [model(image[None]).score.item() for image in each]  # reading the score waits for a GPU
        predict = (clock() - began) / len(scores)
    memory = peak_memory_mb()
    return {
        "size": size,
        "fit": fit,
        "predict": predict,
        "disk": disk,
        "ram": memory["process"],
        "gpu": memory.get("gpu"),
    }


def fitting(name: str, size: int) -> int:
    """The smallest size from `size` on that the model takes."""
    return size + -size % model_card(name).size_multiple


def row(name: str, found: dict[str, float | None]) -> str:
    """A line of the table."""
    forms = {"size": "d", "ram": ".0f", "gpu": ".0f", "disk": ".1f", "fit": ".2f", "predict": ".2f"}
    cells = ["-" if found[key] is None else format(found[key], form) for key, form in forms.items()]
    return f"| `{name}` | {' | '.join(cells)} |"


def present() -> dict[tuple[str, int], str]:
    """The rows of the page by method and size."""
    lines = [line for line in PART.search(PAGE.read_text(encoding="utf-8"))[0].splitlines() if line.startswith("| `")]
    return {(cells[1].strip(" `"), int(cells[2])): line for line in lines for cells in [line.split("|")]}


def write(name: str, size: int, line: str) -> None:
    """Put a row into the page, in place of one of the same method and size."""
    text = PAGE.read_text(encoding="utf-8")
    begin, end = PART.search(text).groups()
    lines = present() | {(name, size): line}
    table = HEAD + "\n".join(lines[key] for key in sorted(lines)) + "\n"
    PAGE.write_text(PART.sub(lambda _: begin + table + end, text), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*")
    parser.add_argument("--all", action="store_true", help="one card of each method that the table lacks")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--jobs", type=int, default=1, help="methods at a time")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)  # a process of its own
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.models[0], options.sizes[0], options.images, options.device)))
        return
    known = present()
    wanted = [(name, size) for name in options.models for size in options.sizes]
    if options.all:
        every = [*(card.name for card in list_models() if card.name.endswith(SMALL)), *OTHERS]
        wanted += [(name, size) for name in every for size in options.sizes if (name, fitting(name, size)) not in known]

    def add(name: str, size: int) -> None:
        command = [sys.executable, __file__, name, "--sizes", str(size), "--images", str(options.images)]
        done = subprocess.run(
            [*command, "--device", options.device, "--one"], stdout=subprocess.PIPE, text=True, check=False
        )
        if done.returncode:
            print(f"{name} at {size} px failed, see above", file=sys.stderr)
            return
        found = json.loads(done.stdout.splitlines()[-1])
        with page:
            print(row(name, found), flush=True)
            write(name, found["size"], row(name, found))

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(add, *zip(*wanted, strict=True)) if wanted else ())


if __name__ == "__main__":
    main()
