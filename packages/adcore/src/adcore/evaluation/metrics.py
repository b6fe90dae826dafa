"""Image metrics on raw scores, an undefined metric is None with the reason, never 0.0."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from adcore_runtime import decisions

from adcore.errors import DataError

Metric = float | dict[str, int] | None  # None: undefined; a dict: the confusion matrix

_CURVE = ("image_auroc", "image_aupr", "image_f1_max", "tpr_at_fpr_1", "tpr_at_fpr_5")
_AT_THRESHOLD = ("precision", "recall", "accuracy", "f1", "confusion_matrix")


@dataclass(frozen=True)
class Metrics:
    """Metric values by name, and for every value that is None the reason why it is undefined."""

    values: Mapping[str, Metric] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def undefined(cls, names: tuple[str, ...], reason: str) -> Metrics:
        """All of `names` as None, for one reason."""
        return cls(dict.fromkeys(names), dict.fromkeys(names, reason))

    def __getitem__(self, name: str) -> Metric:
        return self.values[name]

    def __or__(self, other: Metrics) -> Metrics:
        """The metrics of both, such as image and pixel metrics."""
        return Metrics({**self.values, **other.values}, {**self.reasons, **other.reasons})

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """{"values": ..., "reasons": ...}, ready for JSON."""
        return {"values": dict(self.values), "reasons": dict(self.reasons)}


def image_metrics(scores: Any, labels: Any, threshold: float | None = None) -> Metrics:
    """Metrics of image scores, and of the decisions at `threshold`.

    `scores`: (N,) raw, higher = more anomalous; `labels`: (N,) 0 normal, 1 anomalous; array, tensor or list.
    image_auroc, image_aupr (average precision), image_f1_max, tpr_at_fpr_1 and tpr_at_fpr_5 (the largest TPR that a threshold
    reaches with FPR <= 1 % or 5 %, not interpolated); precision, recall, accuracy, f1, confusion_matrix {tn, fp, fn, tp}.
    All rates are in [0, 1]. Raises DataError for lengths that differ, labels other than 0 and 1, NaN or Inf scores.
    """
    scores, labels = checked_scores(scores, labels)
    return _curve_metrics(scores, labels) | _threshold_metrics(scores, labels, threshold)


def is_anomalous(scores: Any, threshold: float) -> np.ndarray:
    """The decision rule used everywhere: anomalous where score >= threshold; (N,) bool."""
    return decisions.is_anomalous(as_array(scores), threshold)


def checked_scores(scores: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Scores as (N,) float64 and labels as (N,) bool; DataError where they cannot be scored."""
    scores, labels = np.asarray(as_array(scores), np.float64), np.asarray(as_array(labels))
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise DataError(
            f"scores and labels must be two lists of one length, got shapes {scores.shape} and {labels.shape}"
        )
    if not np.isin(labels, (0, 1)).all():
        raise DataError(f"labels must be 0 (normal) or 1 (anomalous), got {sorted(set(labels.tolist()) - {0, 1})[:5]}")
    if not np.isfinite(scores).all():
        bad = np.flatnonzero(~np.isfinite(scores))
        raise DataError(
            f"{bad.size} of {scores.size} scores are NaN or Inf, the first is number {bad[0]}; "
            "look for NaN in that image, or train again with a smaller learning rate"
        )
    return scores, labels.astype(bool)


def as_array(values: Any) -> Any:
    """A torch tensor (any device, with or without gradient) as a numpy array; anything else as it is."""
    if not hasattr(values, "detach"):
        return values
    values = values.detach().cpu()
    return (values.float() if values.is_floating_point() else values).numpy()  # numpy has no bfloat16


def missing_class(labels: np.ndarray) -> str:
    """Why metrics that need normal and anomalous samples are undefined here; empty if they are not."""
    if not labels.size:
        return "no image"
    if not labels.any():
        return "no anomalous image"
    return "no normal image" if labels.all() else ""


def _curve_metrics(scores: np.ndarray, labels: np.ndarray) -> Metrics:
    if reason := missing_class(labels):
        return Metrics.undefined(_CURVE, reason)
    # not torchmetrics: it puts scores beyond [0, 1] through a sigmoid, and raw scores of 30 and 50 both become 1
    from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_curve

    precision, recall, _ = precision_recall_curve(labels, scores)
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
    values = (
        auc(fpr, tpr),
        average_precision_score(labels, scores),
        f1.max(),
        tpr[fpr <= 0.01].max(),
        tpr[fpr <= 0.05].max(),
    )
    return Metrics({name: float(value) for name, value in zip(_CURVE, values, strict=True)})


def _threshold_metrics(scores: np.ndarray, labels: np.ndarray, threshold: float | None) -> Metrics:
    if threshold is None or not labels.size:
        return Metrics.undefined(_AT_THRESHOLD, "no threshold" if threshold is None else "no image")
    predicted = is_anomalous(scores, threshold)
    tp, fp = int((predicted & labels).sum()), int((predicted & ~labels).sum())
    fn, tn = int(labels.sum()) - tp, int((~labels).sum()) - fp
    values: dict[str, Metric] = {
        "accuracy": (tp + tn) / labels.size,
        "confusion_matrix": {"tn": tn, "fp": fp, "fn": fn, "tp": tp},
    }
    reasons = {}
    if labels.any():
        values["recall"] = tp / (tp + fn)
    else:
        reasons["recall"] = missing_class(labels)
    if reason := missing_class(labels):  # with one class only, precision and F1 measure the composition of the set
        reasons |= {"precision": reason, "f1": reason}
    else:
        values["f1"] = 2 * tp / (2 * tp + fp + fn)
        if tp + fp:
            values["precision"] = tp / (tp + fp)
        else:
            reasons["precision"] = "no image reaches the threshold"
    return Metrics({name: values.get(name) for name in _AT_THRESHOLD}, reasons)
