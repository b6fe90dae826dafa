"""Metrics that plugins add: computed beside adcore's own; a metric that fails never ends a run."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch

from adcore.cards import MetricCard
from adcore.evaluation.metrics import Metrics
from adcore.evaluation.planes import planes
from adcore.evaluation.score import Scoring
from adcore.registry import list_metrics, load_metric, metric_origin


def plugin_metrics(scoring: Scoring) -> Metrics:
    """The value of each registered metric; None, with the plugin and the reason, where it fails or is undefined."""
    values: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    for card in list_metrics():
        origin = metric_origin(card)
        try:
            value = _compute(card, load_metric(card), scoring)
        except Exception as error:  # whatever a foreign metric raises
            value, reasons[card.name] = None, f"{origin}: {type(error).__name__}: {error}".splitlines()[0]
        if value is not None and not np.isfinite(value):
            value, reasons[card.name] = None, f"{origin}: the result is {value}"
        if value is None:
            reasons.setdefault(card.name, f"{origin} gives no value")
        values[card.name] = value
    return Metrics(values, reasons)


def _compute(card: MetricCard, target: Any, scoring: Scoring) -> float | None:
    known = [image for image in scoring.images if image.mask is not None and image.anomaly_map is not None]
    maps, masks = planes(known, "anomaly_map"), planes(known, "mask")
    if not inspect.isclass(target):
        value = target(scores=scoring.scores, labels=scoring.labels, maps=maps, masks=masks)
        return None if value is None else float(value)
    metric = target()
    if card.level == "image":
        metric.update(torch.from_numpy(scoring.scores), torch.from_numpy(scoring.labels))
    else:
        for image in known:
            mask = image.mask if image.seen is None else image.mask[image.seen]
            metric.update(torch.from_numpy(image.values).flatten(), torch.from_numpy(mask).flatten().long())
    return float(metric.compute())
