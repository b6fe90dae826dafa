"""Image AUROC with few training images, and with defective ones among them, as tables for docs/03-models.md.

    python tools/few_shots.py shots DATA --seeds 0 1 2
    python tools/few_shots.py noise DATA --seeds 0 1 2

DATA holds mvtec/hazelnut, magtile and visa/macaroni1. All models have the same EfficientNet-Lite0 weights, at 256 px.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path

import adcore
import numpy as np

MODELS = ["patchcore", "softpatch", "subspace-ad", "anomaly-dino", "rad"]
SETS = {"hazelnut": "mvtec:mvtec/hazelnut", "magtile": "mvtec:magtile", "macaroni1": "visa:visa"}
SHOTS = [1, 4, 16, None]
SHARES = [0.05, 0.1, 0.2]


def measured(data: str, category: str, model: str, seed: int, shots: int | None = None) -> tuple[float, float]:
    """Image and pixel AUROC of a run."""
    with tempfile.TemporaryDirectory() as folder:
        options = {"seed": seed, "device": "cpu", "out": Path(folder) / "run"} | ({"shots": shots} if shots else {})
        run = adcore.train(data, category, f"{model}-efficientnet-lite0", **options)
    return run.metrics["image_auroc"], run.metrics["pixel_auroc"]


def cell(values: list[tuple[float, float]]) -> str:
    """Mean and standard deviation of the image AUROC, mean of the pixel AUROC."""
    image, pixel = np.array(values).T
    return f"{image.mean():.3f} ± {image.std():.3f} / {pixel.mean():.3f}"


def few_shots(root: Path, seeds: list[int]) -> None:
    """Models by shots; all images with one seed."""
    print("| data | model | " + " | ".join(str(shots or "all") for shots in SHOTS) + " |\n" + "|---" * 6 + "|")
    for category, data in SETS.items():
        layout, _, folder = data.partition(":")
        for model in MODELS:
            cells = []
            for shots in SHOTS:
                runs = seeds if shots else seeds[:1]
                cells.append(cell([measured(f"{layout}:{root / folder}", category, model, s, shots) for s in runs]))
            print(f"| {category} | `{model}` | " + " | ".join(cells) + " |", flush=True)


def mixed(source: Path, to: Path, share: float, seed: int, train: bool) -> None:
    """The category `source` without a `share` of its defective test images; with `train` they are training images."""
    defective = sorted(path for path in (source / "test").glob("*/*") if path.parent.name != "good")
    moved = set(random.Random(seed).sample(defective, max(1, round(share * len(defective)))))
    for path in sorted(path for path in source.rglob("*") if path.is_file() and path not in moved):
        link = to / path.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    for path in moved if train else ():
        (to / "train" / "good" / f"{path.parent.name}_{path.name}").symlink_to(path)


def noise(root: Path, seeds: list[int]) -> None:
    """What models lose when defective images are among the training images, on the same test images."""
    print("| data | mixed in | model | clean | mixed | loss |\n|---|---|---|---|---|---|")
    for category in ("hazelnut", "magtile"):
        source = (root / SETS[category].partition(":")[2]).resolve()
        for share in SHARES:
            for model in MODELS[:2]:
                auroc: dict[bool, list[float]] = {False: [], True: []}
                for seed in seeds:
                    for train, values in auroc.items():
                        with tempfile.TemporaryDirectory() as folder:
                            mixed(source, Path(folder) / category, share, seed, train)
                            values.append(measured(f"mvtec:{folder}", category, model, seed)[0])
                clean, spoiled = (np.array(values) for values in auroc.values())
                print(
                    f"| {category} | {share:.0%} | `{model}` | {clean.mean():.3f} | {spoiled.mean():.3f} | "
                    f"{(clean - spoiled).mean():.3f} ± {(clean - spoiled).std():.3f} |",
                    flush=True,
                )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=["shots", "noise"])
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    {"shots": few_shots, "noise": noise}[options.table](options.data, options.seeds)
