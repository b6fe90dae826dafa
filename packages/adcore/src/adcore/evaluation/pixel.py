"""Exact pixel metrics, all computed from one sort of the pixel scores.

Every curve below moves only where an anomalous pixel's score is passed: between two such scores false positives alone
grow. So the order of normal pixels among themselves never matters beyond a count, and no pixel has to carry its label or
region through the sort: normal scores are sorted as bare float32 values, anomalous ones (few) keep their region's weight,
and a binary search merges the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from adcore.errors import DataError
from adcore.evaluation.metrics import Metrics, as_array

PIXEL_METRICS = ("pixel_auroc", "pixel_aupr", "pixel_f1_max", "aupro", "aupro_5")
FPR_LIMIT, FEW_FALSE_POSITIVES = 0.3, 0.05


def pixel_metrics(
    maps: Sequence[Any], masks: Sequence[Any], seen: Sequence[np.ndarray | None] | None = None
) -> Metrics:
    """Pixel AUROC, AUPR (average precision), F1-max, AUPRO and AUPRO at 5 % over all images together, each in [0, 1].

    `maps`: (H, W) float32 each, raw, higher = more anomalous; `masks`: (H, W) bool each, True = anomalous; sizes may
    differ from image to image. Leave out images whose mask is not known. `seen`, (H, W) bool or None each: normal pixels
    outside of it do not count, and there are no others; None: all count. AUPRO: per-region overlap, the mean over all
    8-connected regions of the share that is found, integrated over the false positive rate up to 0.3 and divided by 0.3
    (Bergmann et al., IJCV 2021); `aupro_5` up to 0.05, as for MVTec AD 2.
    Memory: one float32 copy of the scores, sorted in place, and 130 bytes for each anomalous pixel; where 5 % are
    anomalous, 2.7 copies of the scores in all.
    Raises DataError for sizes that differ and for NaN or Inf in a map.
    """
    if len(maps) != len(masks):
        raise DataError(f"{len(maps)} anomaly maps but {len(masks)} masks: leave out images whose mask is not known")
    pixels = _collect(maps, masks, seen)
    if not len(maps):
        return Metrics.undefined(PIXEL_METRICS, "no anomaly map with a known mask")
    if not pixels.anomalous.size or not pixels.normal.size:
        kind = "normal" if pixels.anomalous.size else "anomalous"
        return Metrics.undefined(PIXEL_METRICS, f"no {kind} pixel in the masks")
    return curve_metrics(_steps(pixels, [pixels.normal]))


def defect_aupro(
    maps: Sequence[Any],
    masks: Sequence[Any],
    types: Sequence[str | None],
    seen: Sequence[np.ndarray | None] | None = None,
) -> dict[str, float]:
    """AUPRO of each defect type: its images and all normal ones, whose type is None; maps, masks and `seen` as above.

    A type without an anomalous pixel is left out. The pixels of the normal images are sorted once for all types.
    """

    def collected(name: str | None) -> _Pixels:
        chosen = [i for i, one in enumerate(types) if one == name]
        return _collect([maps[i] for i in chosen], [masks[i] for i in chosen], seen and [seen[i] for i in chosen])

    good, found = collected(None).normal, {}
    for name in sorted({one for one in types if one is not None}):
        pixels = collected(name)
        if pixels.anomalous.size and pixels.normal.size + good.size:
            found[name] = curve_metrics(_steps(pixels, [good, pixels.normal])).values["aupro"]
    return found


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


def _steps(pixels: _Pixels, normal: Sequence[np.ndarray]) -> Steps:
    """The curves of anomalous `pixels` against the scores of `normal` pixels, which are sorted here."""
    for scores in normal:
        scores.sort()  # bare values: numpy sorts them with vector instructions, ten times faster than any argsort
    score, step = np.unique(pixels.anomalous, return_inverse=True)  # equal scores are one step of every curve
    count = sum(scores.size for scores in normal)
    before, after = (
        count - sum(np.searchsorted(scores, score, side) for scores in normal) for side in ("right", "left")
    )
    overlap = np.bincount(step, pixels.weights) / pixels.regions
    return Steps(np.bincount(step), overlap, before, after, count)


class _Pixels(NamedTuple):
    normal: np.ndarray  # scores of normal pixels
    anomalous: np.ndarray  # of anomalous ones
    weights: np.ndarray  # 1 / pixels of its region, for each anomalous pixel
    regions: int


def _area(fpr_before: np.ndarray, fpr_after: np.ndarray, rise: np.ndarray, limit: float) -> float:
    """Area up to FPR `limit` under the curve that rises by rise[i], linearly, between fpr_before[i] and fpr_after[i]."""
    width = fpr_after - fpr_before  # 0 unless normal pixels tie with the step
    inside = np.clip(limit - fpr_before, 0, width)
    ramp = np.divide(inside**2, 2 * width, out=np.zeros_like(width), where=width > 0)
    return float(rise @ (ramp + np.maximum(limit - fpr_after, 0)))


def _collect(maps: Sequence[Any], masks: Sequence[Any], seen: Sequence[np.ndarray | None] | None = None) -> _Pixels:
    seen = seen or [None] * len(maps)
    n_pixels = sum(
        int(np.prod(np.shape(mask)) if part is None else np.count_nonzero(part))
        for mask, part in zip(masks, seen, strict=True)
    )
    n_anomalous = sum(int(np.count_nonzero(as_array(mask))) for mask in masks)
    normal = np.empty(n_pixels - n_anomalous, np.float32)
    anomalous, weights = np.empty(n_anomalous, np.float32), np.empty(n_anomalous)
    i = j = n_regions = 0
    for number, (map_, mask, part) in enumerate(zip(maps, masks, seen, strict=True)):
        map_, mask = np.asarray(as_array(map_), np.float32), np.asarray(as_array(mask), bool)
        if map_.shape != mask.shape or map_.ndim != 2:
            raise DataError(
                f"anomaly map {number} is {map_.shape} but its mask {mask.shape}: both must be one (height, width)"
            )
        if not np.isfinite(map_).all():
            raise DataError(f"anomaly map {number} holds NaN or Inf; look for NaN in that image, or train again")
        n_inside = int(np.count_nonzero(mask))
        good = ~mask if part is None else part & ~mask
        n_outside = int(np.count_nonzero(good))
        normal[i : i + n_outside] = map_.ravel() if n_outside == mask.size else map_[good]
        if n_inside:
            anomalous[j : j + n_inside] = map_[mask]
            weights[j : j + n_inside], n = region_weights(mask)
            n_regions += n
        i, j = i + n_outside, j + n_inside
    return _Pixels(normal, anomalous, weights, n_regions)
