"""How soon drift is found, and how often where there is none, as a table for docs/13-station.md.

    python tools/drift_delays.py DATA

DATA holds magtile. PatchCore with EfficientNet-Lite0 learns from some normal images of one half of it, by name. All others of
that half are scored as they are, brighter by a tenth and blurred, and those of the other half as they are. Each of the
simulated streams draws its calibration and its images from these with replacement.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import adcore
import numpy as np
from adcore_runtime.decode import decode
from adcore_runtime.drift import TITLES, Monitor
from PIL import Image, ImageFilter

TRAIN, CALIBRATION, STABLE, CHANGED = 50, 100, 1000, 300  # images
CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "stable": lambda image: image,
    "10 % brighter": lambda image: np.minimum(image * 1.1, 255).round().astype(np.uint8),
    "blurred (Gauss, 1 px)": lambda image: np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(1))),
}
OTHER = "the other half of the images"


def measured(magtile: Path) -> dict[str, list[dict[str, float]]]:
    """The statistics of each image under each condition."""
    files = sorted(
        [*(magtile / "train/good").iterdir(), *(magtile / "test/good").iterdir()], key=lambda path: path.name
    )
    half, other = files[: len(files) // 2], files[len(files) // 2 :]
    learned = [half[i] for i in sorted(np.random.default_rng(0).choice(len(half), TRAIN, replace=False))]
    with tempfile.TemporaryDirectory() as folder:
        good = Path(folder) / "data" / "part" / "train" / "good"
        good.mkdir(parents=True)
        for path in learned:
            (good / path.name).symlink_to(path)
        settings = {"out": Path(folder) / "run", "device": "cpu", "coreset_ratio": 0.02, "image_size": 128}
        run = adcore.train(f"mvtec:{good.parents[2]}", "part", "patchcore-efficientnet-lite0", **settings)
        predictor = adcore.load(run.artifact)
        new = [decode(path).values for path in half if path not in learned]
        found = {name: [predictor.observe(change(image))[1] for image in new] for name, change in CHANGES.items()}
        return found | {OTHER: [predictor.observe(path)[1] for path in other]}


def stream(images: dict[str, list[dict[str, float]]], seed: int, alpha: float) -> dict[str, tuple[int, str] | None]:
    """Image and statistic of the first alarm in the stable part, and after each change (None where there is none)."""
    generator = np.random.default_rng(seed)

    def drawn(name: str, count: int) -> list[dict[str, float]]:
        return [images[name][i] for i in generator.integers(0, len(images[name]), count)]

    first = drawn("stable", CALIBRATION)
    monitor = Monitor({name: [one[name] for one in first] for name in first[0]}, alpha)
    found = {"stable": alarm_of(monitor, drawn("stable", STABLE))}
    if found["stable"] is None:
        for name in images.keys() - found.keys():
            found[name] = alarm_of(copy.deepcopy(monitor), drawn(name, CHANGED))
    return found


def alarm_of(monitor: Monitor, values: list[dict[str, float]]) -> tuple[int, str] | None:
    """How many images it took until the first alarm, and which statistic raised it."""
    for number, one in enumerate(values, 1):
        if raised := monitor.update(one):
            return number, raised[0].statistic
    return None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--alpha", type=float, default=0.01)
    options = parser.parse_args()
    images = measured(options.data / "magtile")
    streams = [stream(images, seed, options.alpha) for seed in range(options.streams)]
    print(
        "| after the change | streams with an alarm | images until it: median (90 %) | first raised by |\n|---|---|---|---|"
    )
    for name in images:
        found = [one[name] for one in streams if name in one]
        alarms = [one for one in found if one]
        delays = [number for number, _ in alarms]
        until = f"{np.median(delays):.0f} ({np.percentile(delays, 90):.0f})" if delays else "-"
        kinds = ", ".join(f"{TITLES[kind]} {count}" for kind, count in Counter(k for _, k in alarms).most_common())
        print(f"| {name} | {len(alarms)} of {len(found)} | {until} | {kinds or '-'} |")
