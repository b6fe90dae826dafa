"""Comparing runs: transfer to other domains, and the significance of a difference between methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MIN_PAIRS = 2  # fewer have no variance
FEW_PAIRS = 5  # with fewer, a t-test finds only very large differences


@dataclass(frozen=True)
class Transfer:
    """One run's result on its source and on its targets together; None where a part is undefined."""

    source: float | None
    target_mean: float | None
    ratio: float | None  # target mean / source
    gap: float | None  # source - target mean


def transfer(source: float | None, targets: Sequence[float | None]) -> Transfer:
    """Transfer ratio and domain gap of one run; the mean is undefined when one target is."""
    mean = None if not targets or None in targets else float(np.mean(targets))
    if source is None or mean is None:
        return Transfer(source, mean, None, None)
    return Transfer(source, mean, mean / source if source else None, source - mean)


@dataclass(frozen=True)
class Comparison:
    """A paired t-test of a method against the baseline; `p` is None where `note` says why there is none."""

    pairs: int
    difference: float | None  # mean of method - baseline
    p: float | None
    note: str = ""


def paired_t_test(method: dict[int, float], baseline: dict[int, float]) -> Comparison:
    """Two-sided paired t-test over the seeds that both have; values by seed."""
    from scipy.stats import ttest_rel

    seeds = sorted(method.keys() & baseline.keys())
    if not seeds:
        return Comparison(0, None, None, "too few pairs (0)")
    a, b = (np.array([values[seed] for seed in seeds], np.float64) for values in (method, baseline))
    difference = float((a - b).mean())
    if len(seeds) < MIN_PAIRS:
        return Comparison(len(seeds), difference, None, f"too few pairs ({len(seeds)})")
    if np.ptp(a - b) <= 1e-12:  # all pairs differ by the same: the statistic would be 0/0 or infinite
        same = "every pair differs by the same" if abs(difference) > 1e-12 else "every pair is equal"
        return Comparison(len(seeds), difference, None, same)
    note = f"few pairs ({len(seeds)})" if len(seeds) < FEW_PAIRS else ""
    return Comparison(len(seeds), difference, float(ttest_rel(a, b).pvalue), note)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for multiple tests by Holm's step-down method (Holm 1979), in the given order."""
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


@dataclass(frozen=True)
class Ranking:
    """Methods ranked on each of `blocks` domains (1: the best); tests are None where there is too little for them."""

    blocks: int
    mean_ranks: dict[str, float]  # best first
    friedman_p: float | None  # that all methods are equal; from three methods and three domains on
    nemenyi: dict[tuple[str, str], float] | None  # p of each pair, corrected for all pairs


def rank_methods(values: dict[str, Sequence[float | None]]) -> Ranking | None:
    """Rank methods by their values on the same domains, the highest first; domains that lack a value are left out.

    Friedman's test, and Nemenyi's test after it (Demsar, JMLR 2006). None with one method, or without a common domain.
    """
    from scipy.stats import friedmanchisquare, rankdata, studentized_range

    table = np.array(
        [[np.nan if v is None else v for v in row] for row in values.values()], np.float64
    )  # (methods, domains)
    table = table[:, ~np.isnan(table).any(axis=0)]
    methods, blocks = table.shape
    if methods < 2 or not blocks:
        return None
    ranks = dict(zip(values, rankdata(-table, axis=0).mean(axis=1).tolist(), strict=True))
    ordered = dict(sorted(ranks.items(), key=lambda pair: pair[1]))
    if methods < 3 or blocks < 3 or np.ptp(table) == 0:
        return Ranking(blocks, ordered, None, None)
    error = np.sqrt(methods * (methods + 1) / (6 * blocks))
    distances = {(a, b): abs(ranks[a] - ranks[b]) / error * np.sqrt(2) for a in values for b in values if a != b}
    nemenyi = {pair: float(studentized_range.sf(q, methods, np.inf)) for pair, q in distances.items()}
    return Ranking(blocks, ordered, float(friedmanchisquare(*table).pvalue), nemenyi)


def mean_std(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean, and the sample standard deviation where there are two values or more."""
    if not values:
        return None, None
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None
