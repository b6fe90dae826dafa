"""Ensembles beside their members, as tables for docs/08-experiments.md: image AUROC, paired tests, time of a prediction.

    python tools/ensembles.py DATA OUT --seeds 0 1 2 3 4

DATA holds magtile and visa/macaroni1. PatchCore, PaDiM and STFPM have the same EfficientNet-Lite0 weights, at 128 px, STFPM
with five epochs. Half of the test images validate: they make scores comparable, and the other half is measured. Runs that OUT
has already are not run again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from adcore import artifact
from adcore.backbones.shared import FrozenFeatures
from adcore.evaluation.compare import mean_std
from adcore.experiments.collect import Measured, collect
from adcore.experiments.present import as_markdown, spread
from adcore.experiments.tables import ensemble_tables

MODELS = [f"{name}-efficientnet-lite0" for name in ("patchcore", "padim", "stfpm")]
SETS = {"magtile": {"dataset": "mvtec", "dataset_root": "."}, "macaroni1": {"dataset": "visa", "dataset_root": "visa"}}
SETTINGS = {"image_size": 128, "epochs": 5, "val_split_mode": "from_test", "val_split_ratio": 0.5, "tensorboard": False}
BY, ROUNDS, IMAGES = "val_image_auroc", 5, 10


def adcore(*arguments: object) -> None:
    """Run the command line; ends the program where it fails."""
    subprocess.run([sys.executable, "-m", "adcore", *map(str, arguments)], check=True, stdout=sys.stderr)


def sessions(data: Path, out: Path, seeds: list[int]) -> list[Path]:
    """One session a data set with all runs, and the ensembles of each seed."""
    found = []
    for category, where in SETS.items():
        folder = out / category
        folder.mkdir(parents=True, exist_ok=True)
        begun = list(folder.glob("*/session.json"))
        if begun:
            adcore("run", "--resume", begun[0].parent, "--gpus", "none")
        else:
            base = (
                SETTINGS
                | where
                | {"dataset_root": str((data / where["dataset_root"]).resolve()), "source_domain": category}
            )
            conditions = folder / "conditions.json"
            conditions.write_text(json.dumps({"base": base, "grid": {"model_type": MODELS}}))
            adcore("run", conditions, "--seeds", ",".join(map(str, seeds)), "--out", folder, "--gpus", "none")
        (session,) = (file.parent for file in folder.glob("*/session.json"))
        for options in ((), ("--weights", "chosen"), ("--combine", "max")):
            adcore("ensemble", session, "--top", len(MODELS), "--by", BY, "--device", "cpu", "--overwrite", *options)
        found.append(session)
    return found


def table(runs: list[Measured]) -> None:
    """Mean and deviation over seeds, a row a method."""
    print("| method | " + " | ".join(SETS) + " |\n" + "|---" * (1 + len(SETS)) + "|")
    for method in dict.fromkeys(run.method for run in runs):
        cells = []
        for category in SETS:
            values = [
                r.result["source_results"]["image_auroc"] for r in runs if (r.method, r.source) == (method, category)
            ]
            cells.append(spread(mean_std(values), 3))
        print(f"| {method} | " + " | ".join(cells) + " |")


def milliseconds(calls: dict[str, Callable[[torch.Tensor], object]]) -> dict[str, float]:
    """Processor time of each call for one image, the least of some rounds in turns."""
    image, found = torch.rand(1, 3, 128, 128), {name: [] for name in calls}
    with torch.inference_mode():
        for _ in range(ROUNDS + 1):
            for name, call in calls.items():
                started = time.process_time()
                for _ in range(IMAGES):
                    call(image)
                found[name].append(1000 * (time.process_time() - started) / IMAGES)
    return {name: min(times[1:]) for name, times in found.items()}


def times(ensemble: Path) -> None:
    """An ensemble's prediction beside the sum of its members' and what it shares, in turns."""
    model, apart = artifact.load(ensemble).model, artifact.load(ensemble).model  # the second one shares nothing
    model.warm_up()
    passes = sum(getattr(part, "source", None) is not None for part in model.modules())
    backbone = next(part for part in apart.parts[0].modules() if isinstance(part, FrozenFeatures))
    calls = {
        "together": model,
        "apart": apart,
        **{str(i): part for i, part in enumerate(apart.parts)},
        "backbone": backbone,
    }
    found = milliseconds(calls)
    total = sum(found[str(i)] for i in range(len(apart.parts)))
    shared = (passes - 1) * found["backbone"]
    print(
        f"\nensemble {found['together']:.1f} ms, without sharing {found['apart']:.1f} ms; members {total:.1f} ms in all, ",
        end="",
    )
    print(f"of which {passes - 1} of {passes} backbone passes take {shared:.1f} ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    options = parser.parse_args()
    folders = sessions(options.data, options.out, options.seeds)
    measured = [run for folder in folders for run in collect(folder)[0]]
    table(measured)
    print()
    print(as_markdown(ensemble_tables(measured, "image_auroc"), []))
    times(next(folders[0].glob("ensembles/*/*")))
