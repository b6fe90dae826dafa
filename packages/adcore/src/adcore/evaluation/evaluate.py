"""From scored images to metrics, a calibration, and the files a run leaves behind."""

from __future__ import annotations

import csv
from dataclasses import asdict
from pathlib import Path
from typing import Any

from adcore.data.samples import Sample
from adcore.errors import DataError
from adcore.evaluation.metrics import Metrics, image_metrics, is_anomalous
from adcore.evaluation.pixel import pixel_metrics
from adcore.evaluation.plugin_metrics import plugin_metrics
from adcore.evaluation.score import Scoring
from adcore.evaluation.thresholds import choose_threshold
from adcore.files import atomic_path


def measure(scoring: Scoring, threshold: float | None) -> Metrics:
    """Image and pixel metrics on raw scores; what is undefined is None, with the reason."""
    if not scoring.images:
        return image_metrics([], [], threshold)
    known = [image for image in scoring.images if image.mask is not None and image.anomaly_map is not None]
    pixel = pixel_metrics([image.anomaly_map for image in known], [image.mask for image in known])
    if all(image.anomaly_map is None for image in scoring.images):
        pixel = Metrics.undefined(tuple(pixel.values), "the model gives no anomaly map")
    return image_metrics(scoring.scores, scoring.labels, threshold) | pixel | plugin_metrics(scoring)


def calibrate(scoring: Scoring, method: str, source: str) -> dict[str, Any]:
    """Threshold and score range from `scoring`, whose images are of the split `source`; empty without a normal image."""
    if not (scoring.labels == 0).any():
        return {}
    threshold = choose_threshold(method, scoring.scores, scoring.labels, source)
    low, high = float(scoring.scores.min()), float(scoring.scores.max())
    return {"threshold": asdict(threshold), "score_range": [low, high]}


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


def write_predictions(path: Path, rows: list[dict[str, Any]]) -> None:
    """`predictions.csv`; scores are written so that reading them gives the same float."""
    if not rows:
        raise DataError(f"no image could be scored, so {path.name} would be empty; see the skipped images")
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def count_samples(samples: list[Sample]) -> dict[str, dict[str, int]]:
    """{"train": {"normal": n, "anomalous": m}, ...} for the record."""
    counts: dict[str, dict[str, int]] = {}
    for sample in samples:
        split = counts.setdefault(sample.split, {"normal": 0, "anomalous": 0})
        split["anomalous" if sample.label else "normal"] += 1
    return counts
