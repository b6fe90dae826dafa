"""How far a metric may be off because the test images are few: a bootstrap over images."""

from __future__ import annotations

from typing import Any

import numpy as np

from adcore.evaluation.metrics import checked_scores, missing_class

RESAMPLES = 1000
COVERED = (2.5, 97.5)  # percentiles: 95 %


def auroc_interval(scores: Any, labels: Any, seed: int = 0) -> tuple[float, float] | None:
    """A 95 % percentile interval of the image AUROC from (N,) scores and (N,) labels; None where it is undefined.

    Normal and anomalous images are drawn again with replacement, each as many as there are (Efron and Tibshirani, 1993,
    stratified). Seeded. Where all scores are in the right order, every resample gives 1, and so does the interval.
    """
    scores, labels = checked_scores(scores, labels)
    if missing_class(labels):
        return None
    values, step = np.unique(scores, return_inverse=True)
    normal, anomalous = step[~labels], step[labels]
    generator, found = np.random.default_rng(seed), np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        below, above = (
            np.bincount(one[generator.integers(len(one), size=len(one))], minlength=len(values))
            for one in (normal, anomalous)
        )
        found[i] = above @ (np.cumsum(below) - below / 2)  # pairs in the right order; ties count half
    low, high = np.percentile(found / (len(normal) * len(anomalous)), COVERED)
    return float(low), float(high)
