"""One page over many runs: leaderboard, heat map, ROC curves, the same images side by side, seeds, significance, reports."""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from adcore.errors import ConfigError
from adcore.evaluation.compare import mean_std, rank_methods
from adcore.evaluation.web_page import render
from adcore.experiments import tables
from adcore.experiments.collect import Measured, check_baseline, check_metric, collect, conditions_of
from adcore.experiments.present import show, spread
from adcore.experiments.side_by_side import side_by_side
from adcore.experiments.tables import MEAN, Group, Table
from adcore.files import write_text

SCRIPTS = ("page.js", "charts.js", "pictures.js", "comparison.js", "side_by_side.js", "start.js")
CURVES = 10  # methods in one chart
LIGHT, DARK = (240, 246, 252), (8, 60, 120)  # of the heat map


def write_comparison(
    folders: Sequence[Path],
    out: Path,
    metric: str = "image_auroc",
    baseline: str | None = None,
    analysis: Sequence[Table] = (),
    notes: Sequence[str] = (),
) -> None:
    """Write the page over all runs below `folders` to `out`, with the tables and notes of an analysis where they are given.

    Raises ConfigError where there is no complete run, where one was run twice, or for an unknown metric or baseline.
    """
    runs, missing = [], []
    for folder in folders:
        found, left = collect(folder)
        runs, missing = [*runs, *found], [*missing, *left]
    known: dict[tuple[str, str, int], Measured] = {}
    for run in runs:
        if (other := known.setdefault((run.method, run.source, run.seed), run)) is not run:
            raise ConfigError(
                f"{run.method} on {run.source} with seed {run.seed} is in {other.folder} and {run.folder}; leave one out"
            )
    check_metric(runs, metric)
    if baseline:
        conditions = {name: method for folder in folders for name, method in conditions_of(folder).items()}
        baseline = check_baseline(runs, conditions, baseline)
    groups = tables.group_runs(runs, metric)
    significance = tables.ranking_tables(groups, metric)
    if baseline:
        significance += tables.test_tables(groups, metric, baseline)
    text = render(
        "comparison.html.j2",
        SCRIPTS,
        {"curves": roc_curves(runs), "sides": side_by_side(runs)},
        metric=metric,
        leaders=leaderboard(groups, runs),
        heat_maps=heat_maps(groups),
        seed_tables=[_texts(one) for one in tables.seed_tables(groups, metric)],
        significance=[_texts(one) for one in significance],
        runs=[_row(run, metric, out.parent) for run in runs],
        missing=[text for text in missing if not any(text in note for note in notes)],
        analysis=[_texts(one) for one in analysis],
        notes=notes,
    )
    write_text(out, text)


def leaderboard(groups: Sequence[Group], runs: Sequence[Measured]) -> list[list[Any]]:
    """Rows, the best first: rank, method, origin, seeds, mean, mean rank over domains, seconds, ms, memory."""
    ranks = {}
    for origin in dict.fromkeys(group.origin for group in groups):
        members = [group for group in groups if group.origin == origin]
        domains = list(dict.fromkeys(domain for group in members for domain in group.averaged))
        ranking = rank_methods({group.method: [group.spread(domain)[0] for domain in domains] for group in members})
        ranks |= {(origin, method): rank for method, rank in (ranking.mean_ranks if ranking else {}).items()}
    costs: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        timings, memory = run.result.get("timings") or {}, run.result.get("peak_memory_mb") or {}
        values = {"fit": timings.get("fit_seconds"), "ms": timings.get("ms_per_image")}
        values["memory"] = memory.get("gpu", memory.get("process"))
        for key, value in values.items():
            if value is not None and np.isfinite(value):
                costs[run.method][key].append(value)
    ordered = sorted(groups, key=lambda group: -(group.spread(MEAN)[0] or 0.0))
    return [
        [
            place,
            group.method,
            group.origin,
            len(group.values),
            spread(group.spread(MEAN)),
            show(ranks.get((group.origin, group.method))),
            *(
                spread(mean_std(costs[group.method][key]), digits)
                for key, digits in (("fit", 1), ("ms", 1), ("memory", 0))
            ),
        ]
        for place, group in enumerate(ordered, start=1)
    ]


def heat_maps(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Of each origin: methods by domains as (text, background, class of the text); one scale of colours for all."""
    means = [mean for group in groups for name in group.columns if (mean := group.spread(name)[0]) is not None]
    low, high = min(means, default=0.0), max(means, default=1.0)
    found = []
    for origin in dict.fromkeys(group.origin for group in groups):
        members = [group for group in groups if group.origin == origin]
        columns = list(dict.fromkeys(name for group in members for name in group.columns))
        rows = [(group.method, [_cell(group.spread(name)[0], low, high) for name in columns]) for group in members]
        found.append({"origin": origin, "columns": columns, "rows": rows})
    return found


def roc_curves(runs: Sequence[Measured]) -> list[dict[str, Any]]:
    """The ROC of each run and category, of runs whose predictions.csv is there; points are (FPR, TPR)."""
    from sklearn.metrics import roc_curve

    methods = list(dict.fromkeys(run.method for run in runs))[:CURVES]
    found = []
    for run in runs:
        file = run.folder / "predictions.csv" if run.folder else None
        if run.method not in methods or file is None or not file.is_file():
            continue
        scores: dict[str, list[tuple[int, float]]] = defaultdict(list)
        with open(file, newline="", encoding="utf-8") as opened:
            for row in csv.DictReader(opened):
                scores[row["category"]].append((int(row["label"]), float(row["score"])))
        for category, pairs in scores.items():
            labels, values = zip(*pairs, strict=True)
            if len(set(labels)) == 2:
                fpr, tpr, _ = roc_curve(labels, values)
                points = np.stack([fpr, tpr], 1).round(4).tolist()
                found.append({"method": run.method, "domain": category, "seed": run.seed, "points": points})
    return found


def _row(run: Measured, metric: str, start: Path) -> list[Any]:
    """method, source, seed, value, link to its report or None."""
    report = run.folder / "report.html" if run.folder else None
    link = None
    if report and report.is_file():
        link = quote(os.path.relpath(report.resolve(), start.resolve()).replace(os.sep, "/"))
        link = link if link.startswith((".", "/")) else f"./{link}"  # a name with a colon is no scheme
    return [run.method, run.source, run.seed, show(run.result["source_results"].get(metric)), link]


def _cell(value: float | None, low: float, high: float) -> tuple[str, str, str]:
    if value is None:
        return show(None), "none", ""
    share = (value - low) / (high - low) if high > low else 1.0
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(LIGHT, DARK, strict=True))
    return f"{value:.3f}", f"rgb({red} {green} {blue})", "dark" if share > 0.5 else "light"


def _texts(table: Table) -> tuple[str, list[str], list[list[str]]]:
    return table.title, table.header, [[show(cell) for cell in row] for row in table.rows]
