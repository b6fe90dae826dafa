"""False-alarm rates that conformal thresholds have on real normal images, over 200 random splits, as a table.

    python tools/false_alarms.py mvtec:ROOT/mvtec:hazelnut visa:ROOT/visa:macaroni1
    python tools/false_alarms.py --folds 5 --shots 100 visa:ROOT/visa:macaroni1

A model learns from half of the normal training images; the scores of the other half and of the normal test images are split at
random into those that the threshold is chosen on and those that it is tried on. With --folds the threshold is chosen by
cross-validation on --shots training images, drawn ten times, and tried on the normal test images.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import adcore
import numpy as np
from adcore.data.samples import NORMAL, select
from adcore.evaluation.metrics import is_anomalous
from adcore.evaluation.normal_thresholds import conformal
from adcore.evaluation.score import score_samples
from adcore.prepared import samples_of, split_samples
from adcore.registry import open_dataset
from adcore.request import DataChoice

RATES, SPLITS = (0.01, 0.05, 0.1), 200


def normal_scores(dataset: str, root: Path, category: str, model: str) -> np.ndarray:
    """Scores of normal images that the model has not learned from."""
    data = DataChoice(dataset, root, category, val_split="from_train", val_ratio=0.5)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        run = adcore.train(
            f"{dataset}:{root}", category, model, out=out, device="cpu", val_split="from_train", val_ratio=0.5
        )
        predictor = adcore.load(run.artifact)
    reader = open_dataset(dataset, str(root))
    samples, _ = split_samples(samples_of(reader, category), data, predictor.artifact.training["seed"])
    held_out = [replace(sample, split="test") for split in ("val", "test") for sample in select(samples, split, NORMAL)]
    return score_samples(predictor.artifact.model, predictor.artifact.preprocess, reader, held_out, "cpu").scores


def row(name: str, scores: np.ndarray, rate: float) -> str:
    """The mean rate over the splits, with its standard error."""
    generator, rates = np.random.default_rng(0), []
    least = int(np.ceil(1 / rate - 1 - 1e-9))
    count = max(least, len(scores) // 2)
    if count > len(scores) - 10:
        return f"| {name} | {len(scores)} | {rate:.0%} | - | needs {least} images and some to try it on |"
    for _ in range(SPLITS):
        order = generator.permutation(len(scores))
        rates.append(is_anomalous(scores[order[count:]], conformal(scores[order[:count]], rate)).mean())
    error = np.std(rates) / np.sqrt(SPLITS)
    return f"| {name} | {len(scores)} | {rate:.0%} | {count} | {np.mean(rates):.2%} ± {error:.2%} |"


def crossed_rows(dataset: str, root: str, category: str, model: str, folds: int, shots: int) -> list[str]:
    """The mean rate over ten draws of the training images, with its standard error."""
    rates: dict[float, list[float]] = {rate: [] for rate in RATES if 1 / rate - 1 <= shots}
    for seed in range(10):
        with tempfile.TemporaryDirectory() as folder:
            options = {"shots": shots, "calibration": f"cv:{folds}", "threshold": f"conformal:{max(rates):g}"}
            out = Path(folder) / "run"
            run = adcore.train(f"{dataset}:{root}", category, model, out=out, device="cpu", seed=seed, **options)
        rows = {row["method"]: row for row in reversed(run.summary["thresholds"])}  # the run's own last
        for rate, found in rates.items():
            used = rows[f"conformal:{rate:g}"]
            normal = used["false_alarms"] + used["passed"]
            found.append(used["false_alarms"] / normal)
    return [
        f"| {category} | {shots} | {rate:.0%} | {normal} | {np.mean(found):.2%} ± {np.std(found, ddof=1) / 10**0.5:.2%} |"
        for rate, found in rates.items()
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", metavar="LAYOUT:ROOT:CATEGORY")
    parser.add_argument("--model", default="patchcore-efficientnet-lite0")
    parser.add_argument("--folds", type=int)
    parser.add_argument("--shots", type=int, default=100)
    options = parser.parse_args()
    if options.folds:
        print(
            "| data | training images | asked for | tried on | false alarms, mean of 10 draws |\n|---|---|---|---|---|"
        )
        for text in options.data:
            print("\n".join(crossed_rows(*text.split(":"), options.model, options.folds, options.shots)), flush=True)
        parser.exit()
    print(
        "| data | normal images | promised at most | chosen on | false alarms, mean of 200 splits |\n|---|---|---|---|---|"
    )
    for text in options.data:
        dataset, root, category = text.split(":")
        scores = normal_scores(dataset, Path(root), category, options.model)
        for rate in RATES:
            print(row(category, scores, rate), flush=True)
