"""Metrics, calibration and prediction rows from scored images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from adcore_runtime import drift
from adcore_runtime.csv_cells import Writer

from adcore.data.samples import NORMAL, Sample
from adcore.errors import DataError
from adcore.evaluation.intervals import auroc_interval, pixel_intervals
from adcore.evaluation.metrics import Metrics, image_metrics, is_anomalous
from adcore.evaluation.pixel import defect_aupro, pixel_metrics
from adcore.evaluation.planes import planes
from adcore.evaluation.plugin_metrics import plugin_metrics
from adcore.evaluation.score import ScoredImage, Scoring
from adcore.evaluation.segmentation import segmentation_metrics
from adcore.evaluation.thresholds import choose_threshold
from adcore.files import atomic_path


def measure(scoring: Scoring, threshold: float | None, pixel_threshold: float | None = None) -> Metrics:
    """Image and pixel metrics on raw scores; what is undefined is None, with the reason."""
    if not scoring.images:
        return image_metrics([], [], threshold)
    _, maps, masks, seen = _with_masks(scoring)
    pixel = pixel_metrics(maps, masks, seen) | segmentation_metrics(maps, masks, pixel_threshold, seen)
    if all(image.anomaly_map is None for image in scoring.images):
        pixel = Metrics.undefined(tuple(pixel.values), "the model gives no anomaly map")
    return image_metrics(scoring.scores, scoring.labels, threshold) | pixel | plugin_metrics(scoring)


def intervals(scoring: Scoring) -> dict[str, tuple[float, float] | None]:
    """95 % intervals of the image AUROC and, where they are defined, of the pixel metrics."""
    if not scoring.images:
        return {}
    known, maps, masks, seen = _with_masks(scoring)
    pixel = pixel_intervals(maps, masks, [image.sample.label for image in known], seen=seen)
    return {"image_auroc": auroc_interval(scoring.scores, scoring.labels), **pixel}


def map_ranges(scoring: Scoring) -> list[tuple[float, float]] | None:
    """Median and highest value of each normal image's anomaly map; None where one has no map."""
    ranges = []
    for image in scoring.images:
        if image.sample.label != NORMAL:
            continue
        values = image.values
        if values is None:
            return None
        ranges.append((float(np.median(values)), float(values.max())))
    return ranges


def calibrate(
    scoring: Scoring, method: str, source: str, ranges: list[tuple[float, float]] | None = None
) -> dict[str, Any]:
    """Threshold and ranges from `scoring`, whose images are of the split `source`; empty without a normal image.

    `score_range`: lowest and highest score. `map_range`, where there are maps: of the normal images the median of the
    maps' medians, and the highest value, from `ranges` (see `map_ranges`) or else from the maps of `scoring`. `statistics`: of
    the normal images, where they were asked for.
    """
    if not (scoring.labels == 0).any():
        return {}
    threshold = choose_threshold(method, scoring.scores, scoring.labels, source)
    low, high = float(scoring.scores.min()), float(scoring.scores.max())
    calibration = {"threshold": asdict(threshold), "score_range": [low, high]}
    if ranges := ranges or map_ranges(scoring):
        calibration["map_range"] = [float(np.median([middle for middle, _ in ranges])), max(high for _, high in ranges)]
    if found := drift.stored([image.statistics for image in scoring.images if image.statistics]):
        calibration["statistics"] = found
    return calibration


def prediction_rows(scoring: Scoring, threshold: float | None) -> list[dict[str, Any]]:
    """One row an image: path, category, defect, label, raw score, decision (None without a threshold)."""
    decisions = is_anomalous(scoring.scores, threshold) if threshold is not None else [None] * len(scoring.images)
    return [
        {
            "path": str(image.sample.image_path),
            "category": image.sample.category,
            "defect": image.sample.defect,
            "label": image.sample.label,
            "score": image.score,
            "predicted": None if decision is None else int(decision),
        }
        for image, decision in zip(scoring.images, decisions, strict=True)
    ]


def defect_rows(scoring: Scoring, threshold: float | None) -> list[dict[str, Any]]:
    """One row a defect type, by name: `defect`, `images`, `image_auroc` and `aupro` against all normal images, `recall`.

    What is undefined, without a normal image, a threshold or a mask, is None.
    """
    normal = [image.score for image in scoring.images if image.sample.label == NORMAL]
    alone = len({image.sample.category for image in scoring.images}) < 2

    def name_of(sample: Sample) -> str | None:
        if sample.label == NORMAL:
            return None
        return sample.defect if alone else f"{sample.category}/{sample.defect}"

    types: dict[str, list[float]] = {}
    for image in scoring.images:
        if name := name_of(image.sample):
            types.setdefault(name, []).append(image.score)
    known, maps, masks, seen = _with_masks(scoring)
    aupro = defect_aupro(maps, masks, [name_of(image.sample) for image in known], seen)
    rows = []
    for defect, scores in sorted(types.items()):
        values = image_metrics([*normal, *scores], [0] * len(normal) + [1] * len(scores), threshold).values
        row = {"defect": defect, "images": len(scores), "image_auroc": values["image_auroc"]}
        rows.append(row | {"aupro": aupro.get(defect), "recall": values["recall"]})
    return rows


def _with_masks(scoring: Scoring) -> tuple[list[ScoredImage], *tuple[Sequence[np.ndarray | None], ...]]:
    """The images that pixel metrics can be computed on; their maps, masks, and the pixels that count."""
    known = [image for image in scoring.images if image.mask is not None and image.anomaly_map is not None]
    return known, planes(known, "anomaly_map"), planes(known, "mask"), planes(known, "seen")


def write_predictions(path: Path, rows: list[dict[str, Any]]) -> None:
    """`predictions.csv`; reading a score gives the same float, text that looks like a formula begins with '."""
    if not rows:
        raise DataError(f"no image could be scored, so {path.name} would be empty; see the skipped images")
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = Writer(file, list(rows[0]))
        for row in rows:
            writer.write(row)


def count_samples(samples: list[Sample]) -> dict[str, dict[str, int]]:
    """{"train": {"normal": n, "anomalous": m}, ...} for the record."""
    counts: dict[str, dict[str, int]] = {}
    for sample in samples:
        split = counts.setdefault(sample.split, {"normal": 0, "anomalous": 0})
        split["anomalous" if sample.label else "normal"] += 1
    return counts
