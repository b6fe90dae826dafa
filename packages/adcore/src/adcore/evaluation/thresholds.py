"""Thresholds on raw image scores: four methods, and those for normal images alone (`adcore.evaluation.normal_thresholds`).

A replacement of the chosen method is always noted.

An image is anomalous where score >= threshold (`adcore.evaluation.metrics.is_anomalous`). Scores are float32, and so is every
threshold that comes out of here: comparisons in float32 and float64 then agree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from adcore.errors import ConfigError, DataError
from adcore.evaluation.metrics import checked_scores
from adcore.evaluation.normal_thresholds import FORMS, parse_rule

STEPS = 1001  # candidates of f1_percentile and f1_grid
CROSSED = "cross-validated"  # a source of scores: training images, each scored by a model that learned from others


@dataclass(frozen=True)
class Threshold:
    """A decision threshold and where it came from."""

    value: float
    method: str  # the method that gave the value
    source: str = ""  # the scores it was chosen on: "val", "test", "train" or CROSSED
    note: str = ""  # for the user: another method was used, or test data, or what is promised
    normal_images: int | None = None  # how many it was chosen on
    false_alarm_rate: float | None = None  # the share of normal images that may be above it, where the method says one
    interval: tuple[float, float] | None = None  # of the value, 95 %, where it is extrapolated


def f1_percentile(scores: Any, labels: Any) -> float:
    """The percentile of all scores with the best F1 of the anomalous class."""
    scores, labels = checked_scores(scores, labels)
    return _best_f1(np.percentile(scores, np.linspace(0, 100, STEPS)), scores, labels)


def f1_grid(scores: Any, labels: Any) -> float:
    """The point with the best F1 on a uniform grid from the lowest to the highest score."""
    scores, labels = checked_scores(scores, labels)
    return _best_f1(np.linspace(scores.min(), scores.max(), STEPS), scores, labels)


def youden(scores: Any, labels: Any) -> float:
    """The score with the largest J = TPR - FPR on the ROC (Youden, Cancer 1950); the highest of equals."""
    from sklearn.metrics import roc_curve

    scores, labels = checked_scores(scores, labels)
    fpr, tpr, thresholds = roc_curve(labels, scores, drop_intermediate=False)
    return float(thresholds[1:][np.argmax((tpr - fpr)[1:])])  # the first point of the ROC has threshold infinity


def normal_p95(scores: Any, labels: Any) -> float:
    """Just above the 95th percentile of the normal scores; anomalous scores are ignored.

    At most one normal score in twenty (rounded up) reaches it, whatever ties there are: scores that are all equal do not
    make all images anomalous.
    """
    scores, labels = checked_scores(scores, labels)
    return float(np.nextafter(np.float32(np.percentile(scores[~labels], 95)), np.float32(np.inf)))


THRESHOLDS: dict[str, Callable[[Any, Any], float]] = {
    "f1_percentile": f1_percentile,
    "f1_grid": f1_grid,
    "youden": youden,
    "normal_p95": normal_p95,
}


def check_method(method: str, normal: int | None = None) -> None:
    """ConfigError for an unknown method, DataError where `normal` images are too few for what it promises."""
    rule = parse_rule(method)
    if rule is None and method not in THRESHOLDS:
        raise ConfigError(f"unknown threshold method {method!r}; valid ones: {', '.join(THRESHOLDS)}, {FORMS}")
    if rule is not None and normal is not None:
        rule.check(normal)


def choose_threshold(method: str, scores: Any, labels: Any, source: str = "", interval: bool = True) -> Threshold:
    """A threshold by `method` from (N,) raw scores and (N,) labels, 0 normal and 1 anomalous.

    `method` is a key of THRESHOLDS, or a rule for normal images such as "conformal:0.01". `source` says which images the
    scores are of ("val", "test", "train" or CROSSED). Where there is no anomalous one, the methods that need some become
    `normal_p95`, and the note says so; so does a rule that these scores do not allow, since the model is trained by now
    (`check_method` refuses it before). Without `interval` none is computed. Raises ConfigError for an unknown method,
    DataError without a normal score.
    """
    check_method(method)
    rule, value, rate, extent = parse_rule(method), None, None, None
    scores, labels = checked_scores(scores, labels)
    if labels.all():
        raise DataError("a threshold needs scores of normal images; add normal images to the validation or test set")
    notes, normal = [], scores[~labels]
    if rule is not None:
        try:
            value, extent = rule.choose(normal), rule.interval(normal) if interval else None
            method, rate = str(rule), None if source == "train" else rule.rate
            notes += [] if source == "train" else [rule.note(len(normal), source == CROSSED)]
        except DataError as error:
            notes.append(f"{error}; the 95th percentile of the normal scores is used instead")
            method = "normal_p95"
    elif method != "normal_p95" and not labels.any():
        notes.append(
            f"no anomalous image to choose {method} on: the 95th percentile of the normal scores is used instead"
        )
        method = "normal_p95"
    if source == "test":
        notes.append("chosen on the test set: precision, recall, accuracy and F1 at this threshold are optimistic")
    if source == CROSSED:
        notes.append("chosen on training images, each scored by a model that learned from the others")
    if source == "train":
        notes.append(
            f"chosen on {len(normal)} training images: others score higher, and more of them are flagged than any rate says"
        )
    if value is None:
        with np.errstate(over="ignore"):  # said below
            value = THRESHOLDS[method](scores, labels)
    if not np.isfinite(value):
        raise DataError(
            f"the threshold by {method} is {value}: the scores reach the end of float32; train the model again"
        )
    return Threshold(value, method, source, "; ".join(notes), len(normal), rate, extent)


def _best_f1(candidates: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> float:
    """The candidate with the best F1; of several, the one in the middle, as far from both classes as can be."""
    candidates = candidates.astype(np.float32).astype(np.float64)
    tp = labels.sum() - np.searchsorted(np.sort(scores[labels]), candidates)
    fp = (~labels).sum() - np.searchsorted(np.sort(scores[~labels]), candidates)
    f1 = 2 * tp / np.maximum(tp + fp + labels.sum(), 1)
    best = np.flatnonzero(f1 == f1.max())
    return float(candidates[best[len(best) // 2]])
