"""The tables of a paper: seeds by domains, methods by domains, p-values, transfer, ranks and settings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from adcore.evaluation.compare import Comparison, Ranking, holm, mean_std, paired_t_test, rank_methods, transfer
from adcore.experiments.collect import Measured

MEAN, POOLED = "Mean", "Pooled"
ALONE, TOGETHER = "each domain on its own", "all domains together"
SIGNIFICANT = 0.05
Spread = tuple[float | None, float | None]  # mean, standard deviation
Cell = str | int | float | Spread | None


@dataclass
class Table:
    """One table; `best` holds (row, column) of the cells that are printed bold."""

    title: str
    header: list[str]
    rows: list[list[Cell]]
    best: set[tuple[int, int]] = field(default_factory=set)


@dataclass
class Group:
    """The runs of one method that one table has in a row: values by seed and column, with the mean over domains."""

    method: str
    origin: str  # ALONE, TOGETHER, or "trained on" a domain
    columns: list[str]  # domains in order, then MEAN, and POOLED for a model over all domains
    averaged: list[str]  # the domains that MEAN is over
    values: dict[int, dict[str, float]]  # seed -> column -> value; what is undefined is left out

    def column(self, name: str) -> dict[int, float]:
        """Values by seed."""
        return {seed: row[name] for seed, row in self.values.items() if name in row}

    def spread(self, name: str) -> Spread:
        """Mean and standard deviation over seeds."""
        return mean_std(list(self.column(name).values()))


def group_runs(runs: Sequence[Measured], metric: str) -> list[Group]:
    """Runs by method and origin. MEAN is over the targets, or without targets over all domains, where all are defined."""
    collected: dict[tuple[str, str], dict[int, dict[str, Any]]] = defaultdict(lambda: defaultdict(dict))
    averaged: dict[tuple[str, str], list[str]] = defaultdict(list)
    for run in runs:
        key = run.method, {"single": ALONE, "all": TOGETHER}.get(run.mode, f"trained on {run.source}")
        row = collected[key][run.seed]
        for (domain, role), measured in run.domains.items():
            row[domain] = measured.get(metric)
            if (run.mode != "multi" or role == "target") and domain not in averaged[key]:
                averaged[key].append(domain)
        if run.mode == "all":
            row[POOLED] = run.result["source_results"].get(metric)
    groups = []
    for (method, origin), seeds in collected.items():
        domains = list(dict.fromkeys(name for row in seeds.values() for name in row if name != POOLED))
        for row in seeds.values():
            values = [row.get(name) for name in averaged[method, origin]]
            row[MEAN] = None if None in values else float(np.mean(values))
        columns = [*domains, MEAN, *([POOLED] if origin == TOGETHER else [])]
        defined = {seed: {k: v for k, v in row.items() if v is not None} for seed, row in sorted(seeds.items())}
        groups.append(Group(method, origin, columns, averaged[method, origin], defined))
    return groups


def seed_tables(groups: Sequence[Group], metric: str) -> list[Table]:
    """Of each method and origin: a row for each seed, and the mean and deviation over seeds."""
    tables = []
    for group in groups:
        rows: list[list[Cell]] = [[seed, *(row.get(c) for c in group.columns)] for seed, row in group.values.items()]
        rows.append(["Mean ± Std", *(group.spread(column) for column in group.columns)])
        tables.append(Table(f"{group.method}, {group.origin}: {metric}", ["Seed", *group.columns], rows))
    return tables


def domain_tables(groups: Sequence[Group], metric: str) -> list[Table]:
    """Of each origin: methods by domains, the best of each column bold."""
    tables = []
    for origin, members in _by_origin(groups).items():
        columns = _columns(members)
        rows: list[list[Cell]] = [[group.method, *(group.spread(column) for column in columns)] for group in members]
        best = set()
        for place in range(1, len(columns) + 1):
            means = [row[place][0] for row in rows]
            if len(rows) > 1 and any(mean is not None for mean in means):
                top = max(mean for mean in means if mean is not None)
                best |= {(number, place) for number, mean in enumerate(means) if mean == top}
        tables.append(Table(f"{origin}: {metric}", ["Method", *columns], rows, best))
    return tables


def test_tables(groups: Sequence[Group], metric: str, baseline: str) -> list[Table]:
    """Of each origin: the paired t-test of each method against the baseline by domain, and the p-values as a matrix.

    Holm's correction counts all tests of an origin.
    """
    tables = []
    for origin, members in _by_origin(groups).items():
        reference = next((group for group in members if group.method == baseline), None)
        others = [group for group in members if group.method != baseline]
        if reference is None or not others:
            continue
        columns = _columns(members)
        tests = {(g.method, c): paired_t_test(g.column(c), reference.column(c)) for g in others for c in columns}
        tested = [key for key, test in tests.items() if test.p is not None]
        corrected = dict(zip(tested, holm([tests[key].p for key in tested]), strict=True))
        rows: list[list[Cell]] = []
        for (method, column), test in tests.items():
            p = corrected.get((method, column))
            verdict = test.note if p is None else ("yes" if p < SIGNIFICANT else "no")
            rows.append([method, column, test.difference, test.p, p, verdict])
        title = f"{origin}: {metric} against {baseline}"
        header = ["Method", "Domain", "Δ Mean", "p-value", "p (Holm)", "significant"]
        tables.append(Table(title, header, rows))
        matrix: list[list[Cell]] = [[g.method, *(corrected.get((g.method, c)) for c in columns)] for g in others]
        tables.append(Table(f"{title}, p (Holm)", ["Method", *columns], matrix))
    return tables


def ensemble_tables(runs: Sequence[Measured], metric: str) -> list[Table]:
    """Each ensemble against its best member by a paired t-test, over the seeds of each domain and over the domains.

    The best member is the one with the highest mean over the same runs. Holm's correction counts all tests.
    """
    values = {(run.method, run.source, run.seed): run.result["source_results"].get(metric) for run in runs}
    tests = []
    for name in dict.fromkeys(run.method for run in runs if "members" in run.result):
        own = [run for run in runs if run.method == name]
        members = list(dict.fromkeys(member for run in own for member in run.result["members"]))
        places = [(run.source, run.seed) for run in own]
        columns = {m: {p: v for p in places if (v := values.get((m, *p))) is not None} for m in [name, *members]}
        sources = sorted({source for source, _ in places})
        for source in sources:
            part = {m: {seed: v for (s, seed), v in column.items() if s == source} for m, column in columns.items()}
            tests.append((f"the seeds of {source}", *_against_best(name, part)))
        if len(sources) > 1:
            means = {m: _means(column, sources) for m, column in columns.items()}
            tests.append(("the domains", *_against_best(name, means)))
    tested = [i for i, (*_, test) in enumerate(tests) if test.p is not None]
    corrected = dict(zip(tested, holm([tests[i][-1].p for i in tested]), strict=True))
    rows: list[list[Cell]] = []
    for i, (over, name, member, test) in enumerate(tests):
        p = corrected.get(i)
        verdict = test.note if p is None else ("yes" if p < SIGNIFICANT and test.difference > 0 else "no")
        rows.append([name, member, over, test.pairs, test.difference, test.p, p, verdict])
    header = ["Ensemble", "best member", "pairs are", "pairs", "Δ Mean", "p-value", "p (Holm)", "beats it"]
    return [Table(f"ensembles against their best member: {metric}", header, rows)] if rows else []


def _against_best(name: str, columns: dict[str, dict[int, float]]) -> tuple[str, str | None, Comparison]:
    """The ensemble, its best member of those measured wherever it is, and the test between the two."""
    own = columns[name]
    whole = {
        m: np.mean([c[k] for k in own]) for m, c in columns.items() if m != name and own and own.keys() <= c.keys()
    }
    best = max(whole, key=whole.__getitem__, default=None)
    return name, best, paired_t_test(own, columns[best] if best else {})


def _means(column: dict[tuple[str, int], float], sources: Sequence[str]) -> dict[int, float]:
    """The mean over the seeds of each source, by its place."""
    found = {i: [v for (s, _), v in column.items() if s == source] for i, source in enumerate(sources)}
    return {i: float(np.mean(values)) for i, values in found.items() if values}


def transfer_tables(runs: Sequence[Measured], metric: str) -> list[Table]:
    """Of each source with targets: the source, each target with transfer ratio and gap, and their mean, by method."""
    seeds: dict[tuple[str, str, str], list[tuple[Any, Any]]] = defaultdict(list)
    for run in runs:
        if run.mode != "multi":
            continue
        source = run.result["source_results"].get(metric)
        targets = {name: one.get(metric) for name, one in run.result["target_results"].items()}
        for name, value in targets.items():
            seeds[run.source, run.method, name].append((source, [value]))
        seeds[run.source, run.method, MEAN].append((source, list(targets.values())))
    rows: dict[str, list[list[Cell]]] = defaultdict(list)
    for (source, method, target), pairs in seeds.items():
        measured = [transfer(*pair) for pair in pairs]
        keys = ("source", "target_mean", "ratio", "gap")
        spreads = [mean_std([v for one in measured if (v := getattr(one, key)) is not None]) for key in keys]
        rows[source].append([method, target, *spreads])
    header = ["Method", "Target", "source", "target", "transfer ratio", "gap"]
    return [Table(f"transfer from {source}: {metric}", header, found) for source, found in rows.items()]


def ranking_tables(groups: Sequence[Group], metric: str) -> list[Table]:
    """Of each origin with two methods or more: mean rank over domains, Friedman's test, and Nemenyi's p-values."""
    tables = []
    for origin, members in _by_origin(groups).items():
        domains = list(dict.fromkeys(domain for group in members for domain in group.averaged))
        values = {g.method: [g.spread(domain)[0] for domain in domains] for g in members}
        ranking = rank_methods(values)
        if ranking is None:
            continue
        title = f"ranks over {ranking.blocks} domains, {origin}: {metric}"
        rows: list[list[Cell]] = [[method, rank] for method, rank in ranking.mean_ranks.items()]
        tables.append(Table(f"{title}{_friedman(ranking)}", ["Method", "mean rank"], rows))
        if ranking.nemenyi is not None:
            names = list(ranking.mean_ranks)
            pairs: list[list[Cell]] = [[a, *(None if a == b else ranking.nemenyi[a, b] for b in names)] for a in names]
            tables.append(Table(f"Nemenyi p-values, {origin}: {metric}", ["Method", *names], pairs))
    return tables


def settings_table(runs: Sequence[Measured]) -> list[Table]:
    """The settings that are not the same in all methods, a column each."""
    written: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        for key, value in run.settings.items():
            if str(value) not in written[run.method][key]:
                written[run.method][key].append(str(value))
    keys = list(dict.fromkeys(key for settings in written.values() for key in settings))
    differ = [key for key in keys if len({tuple(written[method].get(key, ())) for method in written}) > 1]
    if not differ:
        return []
    rows: list[list[Cell]] = [[m, *(", ".join(s.get(key, ())) or None for key in differ)] for m, s in written.items()]
    return [Table("settings that differ", ["Method", *differ], rows)]


def _friedman(ranking: Ranking) -> str:
    return "" if ranking.friedman_p is None else f" (Friedman p = {ranking.friedman_p:.4g})"


def _by_origin(groups: Sequence[Group]) -> dict[str, list[Group]]:
    found: dict[str, list[Group]] = defaultdict(list)
    for group in groups:
        found[group.origin].append(group)
    return found


def _columns(groups: Sequence[Group]) -> list[str]:
    names = list(dict.fromkeys(column for group in groups for column in group.columns))
    return [*(n for n in names if n not in (MEAN, POOLED)), *(n for n in (MEAN, POOLED) if n in names)]
