"""The curves of pixels, and the metrics that are areas under them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from adcore.evaluation.metrics import Metrics

PIXEL_METRICS = ("pixel_auroc", "pixel_aupr", "pixel_f1_max", "aupro", "aupro_5")
FPR_LIMIT, FEW_FALSE_POSITIVES = 0.3, 0.05


class Steps(NamedTuple):
    """What every curve is made of: one step for each score that anomalous pixels have, ascending; (steps,) each."""

    found: np.ndarray  # anomalous pixels with this score
    overlap: np.ndarray  # what they add to the per-region overlap; the sum is 1
    fp_before: np.ndarray  # normal pixels above the step
    fp_after: np.ndarray  # and those that tie with it
    normal: int  # normal pixels in all


def curve_metrics(steps: Steps) -> Metrics:
    """PIXEL_METRICS of the curves; there is a normal and an anomalous pixel."""
    found, total = steps.found, steps.found.sum()
    tp = np.cumsum(found[::-1])[::-1]  # anomalous pixels at or above the step
    fpr_before, fpr_after = steps.fp_before / steps.normal, steps.fp_after / steps.normal
    precision = tp / np.maximum(tp + steps.fp_after, 1)
    values = (
        _area(fpr_before, fpr_after, found / total, 1.0),
        found @ precision / total,
        (2 * tp / (tp + steps.fp_after + total)).max(),
        _area(fpr_before, fpr_after, steps.overlap, FPR_LIMIT) / FPR_LIMIT,
        _area(fpr_before, fpr_after, steps.overlap, FEW_FALSE_POSITIVES) / FEW_FALSE_POSITIVES,
    )
    rounded = np.minimum(values, 1.0)  # a perfect map may sum up to 1 + 2e-16
    return Metrics(dict(zip(PIXEL_METRICS, rounded.tolist(), strict=True)))


def steps_of_levels(normal: np.ndarray, found: np.ndarray, overlap: np.ndarray, regions: float) -> Steps:
    """The curves from counts of normal and anomalous pixels by level of their score, ascending; (levels,) each.

    `overlap`: the sum of 1 / pixels of its region, over the anomalous pixels of each level.
    """
    step = np.flatnonzero(found)
    fp_after = np.cumsum(normal[::-1])[::-1]  # normal pixels at or above each level
    return Steps(found[step], overlap[step] / regions, (fp_after - normal)[step], fp_after[step], fp_after[0])


def region_weights(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """1 / pixels of its 8-connected region for each anomalous pixel of a mask (H, W), in order; and how many regions."""
    from scipy.ndimage import label

    regions, count = label(mask, structure=np.ones((3, 3)))
    inside = regions[mask]  # from 1
    return 1 / np.bincount(inside, minlength=1)[inside], count


def _area(fpr_before: np.ndarray, fpr_after: np.ndarray, rise: np.ndarray, limit: float) -> float:
    """Area up to FPR `limit` under the curve that rises by rise[i], linearly, between fpr_before[i] and fpr_after[i]."""
    width = fpr_after - fpr_before  # 0 unless normal pixels tie with the step
    inside = np.clip(limit - fpr_before, 0, width)
    ramp = np.divide(inside**2, 2 * width, out=np.zeros_like(width), where=width > 0)
    return float(rise @ (ramp + np.maximum(limit - fpr_after, 0)))
