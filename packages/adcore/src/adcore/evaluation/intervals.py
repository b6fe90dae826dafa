"""How far a metric may be off because the test images are few: a bootstrap over images (Efron and Tibshirani, 1993)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from adcore.evaluation.curves import PIXEL_METRICS, curve_metrics, region_weights, steps_of_levels
from adcore.evaluation.metrics import checked_scores, missing_class

RESAMPLES, PIXEL_RESAMPLES = 1000, 200
LEVELS = 2048  # of pixel scores that are told apart, with as many anomalous pixels each
GROUP = 64  # images that are counted together
SAMPLED = 1 << 24  # anomalous pixels that levels are chosen on: of more, evenly spaced ones
COVERED = (2.5, 97.5)  # percentiles: 95 %


def auroc_interval(scores: Any, labels: Any, seed: int = 0) -> tuple[float, float] | None:
    """A 95 % percentile interval of the image AUROC from (N,) scores and (N,) labels; None where it is undefined.

    Normal and anomalous images are drawn again with replacement, each as many as there are; seeded. Where all scores are in
    the right order, every resample gives 1, and so does the interval.
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


def pixel_intervals(
    maps: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    labels: Sequence[int],
    seed: int = 0,
    seen: Sequence[np.ndarray | None] | None = None,
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals of PIXEL_METRICS, empty where they are undefined; maps, masks and `seen` as for
    `pixel_metrics`.

    Whole images are drawn again, normal and anomalous ones (`labels`) each as many as there are: pixels of one image are
    no independent samples. Scores are sorted into LEVELS, so that memory does not grow with the images.
    """
    labels, seen = np.asarray(labels, bool), seen or [None] * len(maps)
    inside = [(int(np.count_nonzero(mask)), mask.size) for mask in masks]
    total = sum(count for count, _ in inside)
    if not total or all(count == size for count, size in inside):
        return {}
    step = -(-total // SAMPLED)
    anomalous = [one[mask][::step] for one, mask in zip(maps, masks, strict=True) if mask.any()]
    edges = np.unique(np.quantile(np.concatenate(anomalous), np.linspace(0, 1, LEVELS)[1:-1]))
    times = _times_drawn(labels, np.random.default_rng(seed))
    counts, regions = np.zeros((PIXEL_RESAMPLES, 3, len(edges) + 1)), np.zeros(PIXEL_RESAMPLES)
    for start in range(0, len(maps), GROUP):
        part = slice(start, start + GROUP)
        found = [_counts(*one, edges) for one in zip(maps[part], masks[part], seen[part], strict=True)]
        counts += np.tensordot(times[:, part], np.stack([count for count, _ in found]), 1)
        regions += times[:, part] @ [number for _, number in found]
    values = [
        list(curve_metrics(steps_of_levels(*one, total)).values.values())
        for one, total in zip(counts, regions, strict=True)
        if one[0].any() and one[1].any()
    ]
    if not values:
        return {}
    bounds = np.percentile(values, COVERED, axis=0)  # (2, metrics)
    return {name: (float(low), float(high)) for name, low, high in zip(PIXEL_METRICS, *bounds, strict=True)}


def _counts(one: np.ndarray, mask: np.ndarray, seen: np.ndarray | None, edges: np.ndarray) -> tuple[np.ndarray, int]:
    """Normal pixels, anomalous pixels and overlap by level, (3, levels), of one map; and the regions of its mask."""
    counts, regions = np.zeros((3, len(edges) + 1)), 0
    good = ~mask if seen is None else seen & ~mask
    normal = np.sort(one[good])  # to look a few edges up in many scores is faster than the other way round
    counts[0] = np.diff(np.searchsorted(normal, edges, "left"), prepend=0, append=normal.size)
    if mask.any():
        weights, regions = region_weights(mask)
        level = np.searchsorted(edges, one[mask], "right")
        counts[1:] = np.bincount(level, minlength=len(edges) + 1), np.bincount(level, weights, len(edges) + 1)
    return counts, regions


def _times_drawn(labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(PIXEL_RESAMPLES, N): how often each image is drawn."""
    times = np.zeros((PIXEL_RESAMPLES, len(labels)))
    for group in (np.flatnonzero(~labels), np.flatnonzero(labels)):
        if len(group):
            times[:, group] = generator.multinomial(len(group), np.full(len(group), 1 / len(group)), PIXEL_RESAMPLES)
    return times
