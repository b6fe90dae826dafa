"""Analysis of sessions: mean and standard deviation over seeds, transfer, and paired tests against a baseline."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adcore.evaluation.compare import Comparison, holm, mean_std, paired_t_test, transfer
from adcore.experiments.collect import check_baseline, check_metric, collect, conditions_of, unfair
from adcore.experiments.tables import Spread

TOGETHER = "all domains"


@dataclass
class DomainRow:
    """A method, trained on `source`, on one domain: over its seeds."""

    method: str
    source: str
    domain: str
    role: str  # "source" or "target", or "part" of a model over all domains
    values: dict[int, float]  # by seed, the ones that are defined
    undefined: int  # runs whose metric is undefined
    tpr_1: Spread
    tpr_5: Spread
    test: Comparison | None = None  # against the baseline
    p_holm: float | None = None

    @property
    def metric(self) -> Spread:
        """Mean and standard deviation over the seeds."""
        return mean_std(list(self.values.values()))


@dataclass
class MethodRow:
    """A method, trained on `source`, as a whole: over its seeds."""

    method: str
    source: str
    seeds: int
    source_metric: Spread
    target_mean: Spread
    ratio: Spread  # target mean / source, of each run
    gap: Spread  # source - target mean, of each run
    fit_seconds: Spread
    memory_mb: Spread


@dataclass
class Analysis:
    """All tables, and the runs that are missing from them."""

    metric: str
    baseline: str | None
    domains: list[DomainRow] = field(default_factory=list)
    methods: list[MethodRow] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # runs that failed or are not complete, with the reason
    unfair: list[str] = field(default_factory=list)  # what differs from the baseline beside the method


def analyze(results: Path, metric: str = "image_auroc", baseline: str | None = None) -> Analysis:
    """The analysis of a session's folder, of all sessions below `results`, or of the plain runs there.

    Raises ConfigError where there is no session or no complete run, or for a metric or baseline that the runs do not have.
    """
    runs, missing = collect(results)
    check_metric(runs, metric)
    groups: dict[tuple[str, str], dict[int, dict[str, Any]]] = defaultdict(dict)
    for run in runs:
        groups[run.method, run.source][run.seed] = run.result
    analysis = Analysis(metric, None, missing=missing)
    for (method, source), seeds in sorted(groups.items()):
        analysis.methods.append(_method_row(method, source, seeds, metric))
        analysis.domains += _domain_rows(method, source, seeds, metric)
    if baseline:
        analysis.baseline = check_baseline(runs, conditions_of(results), baseline)
        _compare(analysis)
        analysis.unfair = unfair(runs, analysis.baseline)
    return analysis


def _domain_rows(method: str, source: str, seeds: dict[int, dict[str, Any]], metric: str) -> list[DomainRow]:
    parts: dict[tuple[str, str], dict[int, dict[str, Any]]] = defaultdict(dict)
    for seed, result in seeds.items():
        parts[TOGETHER if result["mode"] == "all" else source, "source"][seed] = result["source_results"]
        for role, key in (("target", "target_results"), ("part", "domain_results")):
            for domain, measured in result[key].items():
                parts[domain, role][seed] = measured
    rows = []
    for (domain, role), measured in parts.items():
        values = _defined({seed: one.get(metric) for seed, one in measured.items()})
        low, high = (
            mean_std(list(_defined({seed: one.get(key) for seed, one in measured.items()}).values()))
            for key in ("tpr_at_fpr_1", "tpr_at_fpr_5")
        )
        rows.append(DomainRow(method, source, domain, role, values, len(measured) - len(values), low, high))
    return rows


def _method_row(method: str, source: str, seeds: dict[int, dict[str, Any]], metric: str) -> MethodRow:
    transfers = [
        transfer(one["source_results"].get(metric), [target.get(metric) for target in one["target_results"].values()])
        for one in seeds.values()
    ]
    spreads = [
        mean_std([value for one in transfers if (value := getattr(one, key)) is not None])
        for key in ("source", "target_mean", "ratio", "gap")
    ]
    seconds = mean_std([one["timings"]["fit_seconds"] for one in seeds.values()])
    memory = mean_std([one["peak_memory_mb"].get("gpu", one["peak_memory_mb"]["process"]) for one in seeds.values()])
    return MethodRow(method, source, len(seeds), *spreads, seconds, memory)


def _compare(analysis: Analysis) -> None:
    """Test every other method against the baseline, for each source and domain; corrected by Holm over all tests."""
    baseline = analysis.baseline
    reference = {(row.source, row.domain): row.values for row in analysis.domains if row.method == baseline}
    for row in analysis.domains:
        if row.method != baseline:
            row.test = paired_t_test(row.values, reference.get((row.source, row.domain), {}))
    tested = [row for row in analysis.domains if row.test and row.test.p is not None]
    for row, p in zip(tested, holm([row.test.p for row in tested]), strict=True):
        row.p_holm = p


def _defined(values: dict[int, float | None]) -> dict[int, float]:
    return {seed: value for seed, value in values.items() if value is not None}
