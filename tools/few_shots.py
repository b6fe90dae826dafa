"""Image AUROC with few training images, and with defective ones among them, as tables for docs/03-models.md.

    python tools/few_shots.py shots DATA --seeds 0 1 2 --out shots.jsonl
    python tools/few_shots.py noise DATA --seeds 0 1 2 --out noise.jsonl

DATA holds mvtec/hazelnut, magtile and visa/macaroni1. All models have the same EfficientNet-Lite0 weights, at --size pixels.
Every run is added to --out when it ends; what stands there is not run again, and the table is printed from it.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from adcore import pipeline
from adcore.request import DataChoice, choose_model

MODELS = ["patchcore", "softpatch", "subspace-ad", "anomaly-dino", "rad", "superadd"]
UNTRAINED = "musc"  # scores the test images by one another: no shots, no seed
SETS = {"hazelnut": "mvtec:mvtec/hazelnut", "magtile": "mvtec:magtile", "macaroni1": "visa:visa"}
SHOTS = [1, 4, 16, None]
NOISY = ("hazelnut", "magtile")
SHARES = [0.05, 0.1, 0.2]
Run = dict[str, Any]


def shot_runs(seeds: list[int]) -> Iterator[Run]:
    """The runs of the table of shots; all images with one seed."""
    for shots in SHOTS:
        for seed in seeds if shots else seeds[:1]:
            for category in SETS:
                yield from ({"data": category, "model": m, "shots": shots, "seed": seed} for m in MODELS)
    yield from ({"data": category, "model": UNTRAINED, "shots": None, "seed": seeds[0]} for category in SETS)


def noise_runs(seeds: list[int]) -> Iterator[Run]:
    """The runs of the table of noise, without and with the defective images in training."""
    for seed in seeds:
        for category in NOISY:
            for share in SHARES:
                for model in MODELS[:2]:
                    run = {"data": category, "model": model, "share": share, "seed": seed}
                    yield from (run | {"mixed": mixed} for mixed in (False, True))


def measured(run: Run, root: Path, size: int) -> Run:
    """The run with its image and pixel AUROC; without report and pictures."""
    layout, _, folder = SETS[run["data"]].partition(":")
    with ExitStack() as stack:
        out = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        source = root / folder
        if "share" in run:
            mix(source.resolve(), out / "data" / run["data"], run)
            source = out / "data"
        choice = choose_model(f"{run['model']}-efficientnet-lite0", {"seed": run["seed"], "image_size": size})
        data = DataChoice(layout, source, run["data"], shots=run.get("shots"))
        trained = stack.enter_context(pipeline.training(choice, data, out / "run", device="cpu"))
        metrics = trained.run["test"]["values"]
    return run | {"image": metrics["image_auroc"], "pixel": metrics["pixel_auroc"]}


def mix(source: Path, to: Path, run: Run) -> None:
    """The category `source` without a share of its defective test images; where `mixed`, they are training images."""
    defective = sorted(path for path in (source / "test").glob("*/*") if path.parent.name != "good")
    moved = set(random.Random(run["seed"]).sample(defective, max(1, round(run["share"] * len(defective)))))
    for path in sorted(path for path in source.rglob("*") if path.is_file() and path not in moved):
        link = to / path.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    for path in moved if run["mixed"] else ():
        (to / "train" / "good" / f"{path.parent.name}_{path.name}").symlink_to(path)


def values(found: list[Run], key: str = "image", **wanted: Any) -> np.ndarray:
    """One metric of the runs with the `wanted` fields, in order of their seeds."""
    chosen = [run for run in found if all(run[name] == value for name, value in wanted.items())]
    return np.array([run[key] for run in sorted(chosen, key=lambda run: run["seed"])])


def shot_table(found: list[Run]) -> None:
    """Mean and standard deviation of the image AUROC, mean of the pixel AUROC."""
    print("| data | model | " + " | ".join(str(shots or "all") for shots in SHOTS) + " |\n" + "|---" * 6 + "|")
    for category in SETS:
        for model in [*MODELS, UNTRAINED]:
            cells = []
            for shots in SHOTS:
                image, pixel = (values(found, k, data=category, model=model, shots=shots) for k in ("image", "pixel"))
                spread = f" ± {image.std():.3f}" if len(image) > 1 else ""
                cells.append(f"{image.mean():.3f}{spread} / {pixel.mean():.3f}" if len(image) else "-")
            print(f"| {category} | `{model}` | " + " | ".join(cells) + " |")


def noise_table(found: list[Run]) -> None:
    """What models lose in image AUROC when defective images are among the training images, on the same test images."""
    print("| data | mixed in | model | clean | mixed | loss |\n|---|---|---|---|---|---|")
    for category in NOISY:
        for share in SHARES:
            for model in MODELS[:2]:
                pairs = (values(found, data=category, model=model, share=share, mixed=mixed) for mixed in (False, True))
                clean, spoiled = pairs
                if len(clean) and len(clean) == len(spoiled):
                    loss = clean - spoiled
                    cells = f"{clean.mean():.3f} | {spoiled.mean():.3f} | {loss.mean():.3f} ± {loss.std():.3f}"
                    print(f"| {category} | {share:.0%} | `{model}` | {cells} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=["shots", "noise"])
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--size", type=int, default=256, help="pixels of the images; another size needs another --out")
    parser.add_argument(
        "--out", type=Path, required=True, help="JSON lines of the runs; what is there is not run again"
    )
    parser.add_argument("--most", type=int, help="end after so many runs; the next call goes on")
    options = parser.parse_args()
    runs, table = {"shots": (shot_runs, shot_table), "noise": (noise_runs, noise_table)}[options.table]
    found = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    known = [{key: value for key, value in run.items() if key not in ("image", "pixel")} for run in found]
    for run in [run for run in runs(options.seeds) if run not in known][: options.most]:
        found.append(measured(run, options.data, options.size))
        with open(options.out, "a", encoding="utf-8") as file:
            print(json.dumps(found[-1]), file=file, flush=True)
    table(found)
