"""Metrics of a map that is cut at one value: what a user sees who draws regions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adcore.evaluation.metrics import Metrics

SEGMENTATION_METRICS = ("seg_f1",)


def segmentation_metrics(
    maps: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    pixel_threshold: float | None,
    seen: Sequence[np.ndarray | None] | None = None,
) -> Metrics:
    """SegF1: F1 of the pixels at or above `pixel_threshold`, over all images together (MVTec AD 2, Heckler-Kram et al. 2025).

    `maps`: (H, W) float32 each, raw; `masks`: (H, W) bool each. The threshold has to come from normal images alone; None:
    there is none. `seen` as for `pixel_metrics`.
    """
    if pixel_threshold is None:
        return Metrics.undefined(SEGMENTATION_METRICS, "no pixel threshold: no map of a normal image to calibrate on")
    if not len(maps):
        return Metrics.undefined(SEGMENTATION_METRICS, "no anomaly map with a known mask")
    anomalous = sum(int(np.count_nonzero(mask)) for mask in masks)
    if not anomalous:
        return Metrics.undefined(SEGMENTATION_METRICS, "no anomalous pixel in the masks")
    tp = positive = 0
    for one, mask, part in zip(maps, masks, seen or [None] * len(maps), strict=True):
        flagged = one >= pixel_threshold
        if part is not None:
            flagged &= part
        positive += int(np.count_nonzero(flagged))
        tp += int(np.count_nonzero(flagged & mask))
    return Metrics({"seg_f1": 2 * tp / (positive + anomalous)})
