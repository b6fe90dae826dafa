"""Analysis of sessions: mean and standard deviation over seeds, transfer, and paired tests against a baseline."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adcore.errors import ConfigError, suggest
from adcore.evaluation.compare import Comparison, holm, mean_std, paired_t_test, transfer
from adcore.experiments.session import Run, load_session

TOGETHER = "all domains"
Spread = tuple[float | None, float | None]  # mean, standard deviation


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


def analyze(results: Path, metric: str = "image_auroc", baseline: str | None = None) -> Analysis:
    """The analysis of a session's folder, or of all sessions below `results`.

    Raises ConfigError where there is no session or no complete run, or for a metric or baseline that the runs do not have.
    """
    complete, missing = _collect(results)
    if not complete:
        raise ConfigError(f"{results}: no complete run; " + (missing[0] if missing else "the session is empty"))
    known = [key for key, value in complete[0][1]["source_results"].items() if not isinstance(value, dict | str)]
    if metric not in known:
        raise ConfigError(f"no metric '{metric}'{suggest(metric, known)} valid ones: {', '.join(known)}")
    groups: dict[tuple[str, str], dict[int, dict[str, Any]]] = defaultdict(dict)
    methods = _method_names([run for run, _ in complete])
    for run, result in complete:
        seeds = groups[methods[run.name], run.source]
        if run.seed in seeds:
            raise ConfigError(
                f"{results}: {methods[run.name]} on {run.source} with seed {run.seed} was run twice; give one session"
            )
        seeds[run.seed] = result
    analysis = Analysis(metric, None, missing=missing)
    for (method, source), seeds in sorted(groups.items()):
        analysis.methods.append(_method_row(method, source, seeds, metric))
        analysis.domains += _domain_rows(method, source, seeds, metric)
    if baseline:
        _compare(analysis, methods.get(baseline, baseline))
    return analysis


def _collect(results: Path) -> tuple[list[tuple[Run, dict[str, Any]]], list[str]]:
    """Complete runs with their results, and a line for each other run."""
    folders = [results] if (results / "session.json").is_file() else [f.parent for f in results.glob("*/session.json")]
    if not folders:
        raise ConfigError(f"{results}: no session there; give the folder that adcore run has printed")
    complete, missing = [], []
    for session in map(load_session, sorted(folders)):
        for run in session.runs:
            result = session.result(run)
            if result:
                complete.append((run, result))
            else:
                missing.append(f"{run.name} (seed {run.seed}): {run.state}{': ' if run.error else ''}{run.error}")
    return complete, missing


def _method_names(runs: list[Run]) -> dict[str, str]:
    """Condition -> method: its model, or its own name where several conditions use that model on one source."""
    conditions: dict[tuple[str, str], set[str]] = defaultdict(set)
    for run in runs:
        conditions[run.model, run.source].add(run.name)
    several = {model for (model, _), names in conditions.items() if len(names) > 1}
    return {run.name: run.name if run.model in several else run.model for run in runs}


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


def _compare(analysis: Analysis, baseline: str) -> None:
    """Test every other method against the baseline, for each source and domain; corrected by Holm over all tests."""
    known = sorted({row.method for row in analysis.domains})
    if baseline not in known:
        raise ConfigError(f"no method '{baseline}'{suggest(baseline, known)} methods: {', '.join(known)}")
    analysis.baseline = baseline
    reference = {(row.source, row.domain): row.values for row in analysis.domains if row.method == baseline}
    for row in analysis.domains:
        if row.method != baseline:
            row.test = paired_t_test(row.values, reference.get((row.source, row.domain), {}))
    tested = [row for row in analysis.domains if row.test and row.test.p is not None]
    for row, p in zip(tested, holm([row.test.p for row in tested]), strict=True):
        row.p_holm = p


def _defined(values: dict[int, float | None]) -> dict[int, float]:
    return {seed: value for seed, value in values.items() if value is not None}
