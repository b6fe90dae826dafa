"""Output of an analysis: terminal table, CSV, LaTeX, or one self-contained HTML page."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from adcore_runtime.csv_cells import cells

from adcore.experiments.analyze import Analysis, DomainRow, MethodRow, Spread

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOTHING = "-"


def spread(value: Spread, digits: int = 4) -> str:
    """ "0.9123 ± 0.0100"; without the deviation where one seed has none."""
    mean, std = value
    if mean is None:
        return NOTHING
    return f"{mean:.{digits}f}" + (f" ± {std:.{digits}f}" if std is not None else "")


def domain_table(analysis: Analysis) -> tuple[list[str], list[list[str]]]:
    """Header and rows: each method on each domain."""
    tested = ["difference", "p", "p (Holm)"] if analysis.baseline else []
    header = ["method", "source", "domain", "role", "seeds", analysis.metric, *tested, "TPR@FPR 1 %", "TPR@FPR 5 %"]
    rows = []
    for row in analysis.domains:
        cells = [row.method, row.source, row.domain, row.role, str(len(row.values)), spread(row.metric)]
        *numbers, note = _test_cells(row) if analysis.baseline else [""]
        rows.append([*cells, *numbers, spread(row.tpr_1), spread(row.tpr_5), *([note] if tested else [])])
    return header + ["note"] * bool(tested), rows


def method_table(analysis: Analysis) -> tuple[list[str], list[list[str]]]:
    """Header and rows: each method as a whole."""
    header = ["method", "source", "seeds", "on source", "target mean", "transfer ratio", "domain gap", "fit s", "MB"]
    return header, [_method_cells(row) for row in analysis.methods]


def notes(analysis: Analysis) -> list[str]:
    """Notes beside the tables."""
    undefined = [
        f"{row.method} {row.source} -> {row.domain}: {analysis.metric} is undefined in {row.undefined} runs, left out"
        for row in analysis.domains
        if row.undefined
    ]
    return [f"not in the tables: {text}" for text in analysis.missing] + undefined


def as_text(analysis: Analysis) -> str:
    """Tables for a terminal."""
    tables = [_aligned(*table) for table in (domain_table(analysis), method_table(analysis))]
    return "\n\n".join([*tables, *notes(analysis)]) + "\n"


def as_csv(analysis: Analysis) -> str:
    """One line for each method, source and domain with unrounded numbers, and one for each run that is missing."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    tail = ["tpr_at_fpr_1", "tpr_at_fpr_5", "baseline", "pairs", "difference", "p", "p_holm", "note"]
    writer.writerow(["method", "source", "domain", "role", "seeds", "metric", "mean", "std", *tail])
    for row in analysis.domains:
        test = row.test
        compared = (
            [analysis.baseline, test.pairs, test.difference, test.p, row.p_holm, test.note] if test else [None] * 6
        )
        head = [row.method, row.source, row.domain, row.role, len(row.values), analysis.metric, *row.metric]
        writer.writerow(cells([*head, row.tpr_1[0], row.tpr_5[0], *compared]))
    for missing in analysis.missing:
        writer.writerow(cells(["", "", "", "missing", *[None] * 11, missing]))
    return text.getvalue()


def as_latex(analysis: Analysis) -> str:
    """Two tables (booktabs) for a paper; what is missing stands in comments above."""
    lines = [f"% {' '.join(note.split())}" for note in notes(analysis)]
    for header, rows in (domain_table(analysis), method_table(analysis)):
        lines += [r"\begin{tabular}{" + "l" * len(header) + "}", r"\toprule"]
        lines += [" & ".join(map(_tex, header)) + r" \\", r"\midrule"]
        lines += [" & ".join(map(_tex, row)) + r" \\" for row in rows]
        lines += [r"\bottomrule", r"\end{tabular}", ""]
    return "\n".join(lines)


def as_html(analysis: Analysis) -> str:
    """One page that needs no other file: notes, figures, tables; every text is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from adcore.evaluation.plots import figure_data_uri

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("analysis.html.j2").render(
        metric=analysis.metric,
        baseline=analysis.baseline,
        notes=notes(analysis),
        tables=[("Domains", *domain_table(analysis)), ("Methods", *method_table(analysis))],
        bars=figure_data_uri(bars(analysis), "svg"),
        heat_maps=[
            (method, figure_data_uri(heat_map(analysis, method), "svg"))
            for method in dict.fromkeys(row.method for row in analysis.domains)
        ],
    )


def bars(analysis: Analysis) -> Figure:
    """The metric of every method on every domain, with the standard deviation over seeds as error bars."""
    from matplotlib.figure import Figure

    places = list(dict.fromkeys((row.source, row.domain) for row in analysis.domains))
    methods = list(dict.fromkeys(row.method for row in analysis.domains))
    figure = Figure(figsize=(max(6.0, 1.2 + 0.3 * len(places) * (len(methods) + 1)), 4.2), layout="constrained")
    axes, width = figure.subplots(), 0.8 / len(methods)
    for number, method in enumerate(methods):
        rows = [row for row in analysis.domains if row.method == method and row.metric[0] is not None]
        at = [places.index((row.source, row.domain)) + (number - (len(methods) - 1) / 2) * width for row in rows]
        errors = [row.metric[1] or 0.0 for row in rows]
        axes.bar(at, [row.metric[0] for row in rows], width, yerr=errors, capsize=3, label=method)
    labels = [domain if source == domain else f"{source} → {domain}" for source, domain in places]
    axes.set_xticks(range(len(places)), labels, rotation=30, ha="right")
    axes.set_ylabel(f"{analysis.metric}, mean ± std over seeds")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper left", ncols=3, frameon=False)
    return figure


def heat_map(analysis: Analysis, method: str) -> Figure:
    """The mean metric of one method: trained on the row, tested on the column; one scale of colours for all methods."""
    from matplotlib.figure import Figure

    rows = [row for row in analysis.domains if row.method == method]
    sources, domains = sorted({row.source for row in rows}), sorted({row.domain for row in rows})
    grid = np.full((len(sources), len(domains)), np.nan)
    for row in rows:
        grid[sources.index(row.source), domains.index(row.domain)] = np.nan if row.metric[0] is None else row.metric[0]
    figure = Figure(figsize=(1.8 + len(domains), 1.4 + 0.6 * len(sources)), layout="constrained")
    axes = figure.subplots()
    low = min([0.5, *(row.metric[0] for row in analysis.domains if row.metric[0] is not None)])
    axes.imshow(grid, cmap="viridis", vmin=low, vmax=1.0, aspect="auto")
    for (i, j), value in np.ndenumerate(grid):
        if np.isfinite(value):
            axes.text(
                j, i, f"{value:.3f}", ha="center", va="center", color="black" if value > 0.3 * low + 0.7 else "white"
            )
    axes.set_xticks(range(len(domains)), domains, rotation=30, ha="right")
    axes.set_yticks(range(len(sources)), sources)
    axes.set(xlabel="tested on", ylabel="trained on")
    return figure


def _method_cells(row: MethodRow) -> list[str]:
    quality = [spread(value) for value in (row.source_metric, row.target_mean, row.ratio, row.gap)]
    return [row.method, row.source, str(row.seeds), *quality, spread(row.fit_seconds, 1), spread(row.memory_mb, 0)]


def _test_cells(row: DomainRow) -> list[str]:
    if row.test is None:
        return ["baseline", NOTHING, NOTHING, ""]
    numbers = [NOTHING if p is None else f"{p:.4f}" for p in (row.test.p, row.p_holm)]
    difference = NOTHING if row.test.difference is None else f"{row.test.difference:+.4f}"
    return [difference, *numbers, row.test.note]


def _aligned(header: list[str], rows: list[list[str]]) -> str:
    """Columns as wide as their widest cell: nothing is cut when the output is not a terminal."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def _tex(text: str) -> str:
    escaped = "".join("\\" + char if char in "&%$#_{}" else char for char in text)
    return escaped.replace("±", r"$\pm$").replace("→", r"$\to$")
