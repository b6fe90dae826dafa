"""Another threshold for a trained model, from new images or given, without training it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from adcore import artifact as artifacts
from adcore.artifact import Artifact
from adcore.data.roi import rois_for
from adcore.data.samples import NORMAL, DatasetReader, Sample, select
from adcore.errors import ConfigError, DataError
from adcore.evaluation import evaluate as evaluation
from adcore.evaluation.score import Scoring, score_samples
from adcore.evaluation.thresholds import check_method
from adcore.prepared import samples_of
from adcore.registry import open_dataset
from adcore.request import DataChoice
from adcore.training.device import pick_device


def with_value(artifact: Artifact, value: float) -> Artifact:
    """The same model with the threshold `value` on raw scores; the ranges of scores and maps stay as they were calibrated.

    ConfigError for a value that is not finite in float32.
    """
    with np.errstate(over="ignore"):
        value = float(np.float32(value))
    if not np.isfinite(value):
        raise ConfigError("--value must be a finite number")
    threshold = {"value": value, "method": "given", "source": "", "note": "given by the user"}
    ranges = {"score_range": artifact.calibration.get("score_range") or [value, value]}
    return replace(artifact, calibration={**artifact.calibration, **ranges, "threshold": threshold})


def recalibrated(
    artifact: Artifact, data: DataChoice, method: str, split: str | None = None, device: str = "auto"
) -> tuple[Artifact, Scoring]:
    """The same model with a threshold by `method` on the images of `data`, and their scores.

    `split` is "test" or "train"; without it the test images, or where there are none the training images. Raises DataError
    without a normal image there, or with too few for the method.
    """
    reader, chosen, split = calibration_images(data, method, split)
    reader.rois = rois_for(artifact.preprocess, data.roi)
    view, chosen_device = artifact.preprocess, pick_device(device)
    scoring = score_samples(artifact.model, view, reader, chosen, chosen_device, data.skip_bad, statistics=True)
    kept = {key: artifact.calibration[key] for key in ("review_band", "categories") if key in artifact.calibration}
    return replace(artifact, calibration=kept | evaluation.calibrate(scoring, method, split)), scoring


def calibration_images(
    data: DataChoice, method: str, split: str | None = None
) -> tuple[DatasetReader, list[Sample], str]:
    """Reader, images and split that a threshold is chosen on: the test images, or where there are none the training images.

    Raises DataError without a normal image there, or with too few for the method.
    """
    reader = open_dataset(data.dataset, str(data.root), **data.options)
    reader.needs_training = False
    samples = samples_of(reader, data.category)
    split = split or ("test" if select(samples, "test") else "train")
    chosen = select(samples, split)
    normal = len(select(chosen, split, NORMAL))
    if not normal:
        raise DataError(f"{data.root} has no normal image in its {split} split to choose a threshold on")
    check_method(method, normal)
    return reader, chosen, split


def by_category(
    artifact: Artifact, choices: Sequence[DataChoice], method: str, split: str | None = None, device: str = "auto"
) -> tuple[Artifact, dict[str, Scoring]]:
    """The same model with a threshold for each category, by `method` on its own images, and their scores.

    The common threshold and the ranges of scores and maps stay. Raises DataError as `recalibrated` does.
    """
    thresholds, scorings = {}, {}
    for data in choices:
        changed, scorings[data.category] = recalibrated(artifact, data, method, split, device)
        thresholds[data.category] = changed.calibration["threshold"]
    return replace(artifact, calibration={**artifact.calibration, "categories": thresholds}), scorings


def with_band(artifact: Artifact, band: tuple[float, float]) -> Artifact:
    """The same model with a review band (low, high) on raw scores."""
    return replace(artifact, calibration={**artifact.calibration, "review_band": list(band)})


def save_beside(path: Path, out: Path, artifact: Artifact, overwrite: bool) -> dict[str, Any]:
    """Write `artifact` to `out`, which is never the file `path` that it was loaded from; returns its header."""
    check_new(out, [path], overwrite)
    return artifacts.save(out, artifact)


def check_new(out: Path, sources: Sequence[Path], overwrite: bool) -> None:
    """ConfigError unless `out` can be a new model file, and is none of those in `sources`."""
    if out.suffix != ".safetensors":
        raise ConfigError(f"--out {out}: the name of a model file ends in .safetensors")
    for path in sources:
        source = path / artifacts.MODEL_FILE if path.is_dir() else path
        if out.exists() and source.exists() and out.samefile(source):
            raise ConfigError(f"{out} is the model itself, which stays as it is; choose another --out")
    if out.exists() and not overwrite:
        raise ConfigError(f"{out} exists already; choose another --out, or --overwrite")
