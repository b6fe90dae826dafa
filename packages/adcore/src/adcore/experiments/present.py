"""Output of an analysis: terminal table, CSV, LaTeX or Markdown; the HTML page is that of a comparison."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Sequence

from adcore_runtime.csv_cells import cells

from adcore.experiments.analyze import Analysis, DomainRow, MethodRow
from adcore.experiments.tables import Cell, Spread, Table

NOTHING = "-"


def spread(value: Spread, digits: int = 4) -> str:
    """ "0.9123 ± 0.0100"; without the deviation where one seed has none."""
    mean, std = value
    if mean is None:
        return NOTHING
    return f"{mean:.{digits}f}" + (f" ± {std:.{digits}f}" if std is not None else "")


def show(cell: Cell) -> str:
    """A cell as text: four digits."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return NOTHING
    if isinstance(cell, tuple):
        return spread(cell)
    return f"{cell:.4f}" if isinstance(cell, float) else str(cell)


def domain_table(analysis: Analysis) -> Table:
    """Each method on each domain."""
    tested = ["difference", "p", "p (Holm)"] if analysis.baseline else []
    header = ["method", "source", "domain", "role", "seeds", analysis.metric, *tested, "TPR@FPR 1 %", "TPR@FPR 5 %"]
    rows: list[list[Cell]] = []
    for row in analysis.domains:
        cells = [row.method, row.source, row.domain, row.role, len(row.values), row.metric]
        *numbers, note = _test_cells(row) if analysis.baseline else [""]
        rows.append([*cells, *numbers, row.tpr_1, row.tpr_5, *([note] if tested else [])])
    return Table("Domains", header + ["note"] * bool(tested), rows)


def method_table(analysis: Analysis) -> Table:
    """Each method as a whole."""
    header = ["method", "source", "seeds", "on source", "target mean", "transfer ratio", "domain gap", "fit s", "MB"]
    return Table("Methods", header, [_method_cells(row) for row in analysis.methods])


def notes(analysis: Analysis) -> list[str]:
    """Notes beside the tables."""
    undefined = [
        f"{row.method} {row.source} -> {row.domain}: {analysis.metric} is undefined in {row.undefined} runs, left out"
        for row in analysis.domains
        if row.undefined
    ]
    return [f"not in the tables: {text}" for text in analysis.missing] + undefined + analysis.unfair


def as_text(tables: Sequence[Table], notes: Sequence[str]) -> str:
    """Tables for a terminal, the best of a column with a star."""
    parts = [f"{table.title}\n{_aligned(table.header, _texts(table, '{} *'))}" for table in tables]
    return "\n\n".join([*parts, *notes]) + "\n"


def as_markdown(tables: Sequence[Table], notes: Sequence[str]) -> str:
    """Tables as GitHub's Markdown has them."""
    lines = [f"> {note}\n" for note in notes]
    for table in tables:
        rows = [table.header, ["---"] * len(table.header), *_texts(table, "**{}**")]
        lines += [
            f"**{table.title}**\n",
            *(f"| {' | '.join(c.replace('|', chr(92) + '|') for c in row)} |" for row in rows),
            "",
        ]
    return "\n".join(lines)


def tables_as_csv(tables: Sequence[Table], notes: Sequence[str]) -> str:
    """Unrounded numbers; of each table a header and its rows, which begin with its title. A deviation has its own column."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for table in tables:
        wide = [any(isinstance(row[place], tuple) for row in table.rows) for place in range(len(table.header))]
        names = [[name, f"{name} std"] if two else [name] for name, two in zip(table.header, wide, strict=True)]
        writer.writerow(cells(["table", *itertools.chain(*names)]))
        for row in table.rows:
            parts = [_wide(cell) if two else [cell] for cell, two in zip(row, wide, strict=True)]
            writer.writerow(cells([table.title, *itertools.chain(*parts)]))
    for note in notes:
        writer.writerow(cells(["note", note]))
    return text.getvalue()


def _wide(cell: Cell) -> list[Cell]:
    return list(cell) if isinstance(cell, tuple) else [cell, None]


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


def as_latex(tables: Sequence[Table], notes: Sequence[str]) -> str:
    """Tables (booktabs) for a paper, the best of a column bold; what is missing stands in comments above."""
    lines = [f"% {' '.join(note.split())}" for note in notes]
    for table in tables:
        lines += [f"% {table.title}", r"\begin{tabular}{" + "l" * len(table.header) + "}", r"\toprule"]
        lines += [" & ".join(map(_tex, table.header)) + r" \\", r"\midrule"]
        for number, row in enumerate(table.rows):
            texts = [_tex(show(cell)) for cell in row]
            texts = [rf"\textbf{{{t}}}" if (number, place) in table.best else t for place, t in enumerate(texts)]
            lines.append(" & ".join(texts) + r" \\")
        lines += [r"\bottomrule", r"\end{tabular}", ""]
    return "\n".join(lines)


def _method_cells(row: MethodRow) -> list[Cell]:
    quality = [row.source_metric, row.target_mean, row.ratio, row.gap]
    return [row.method, row.source, row.seeds, *quality, spread(row.fit_seconds, 1), spread(row.memory_mb, 0)]


def _test_cells(row: DomainRow) -> list[Cell]:
    if row.test is None:
        return ["baseline", None, None, ""]
    difference = NOTHING if row.test.difference is None else f"{row.test.difference:+.4f}"
    return [difference, row.test.p, row.p_holm, row.test.note]


def _texts(table: Table, best: str) -> list[list[str]]:
    """Cells as text; `best` is what the best of a column looks like."""
    return [
        [best.format(show(cell)) if (number, place) in table.best else show(cell) for place, cell in enumerate(row)]
        for number, row in enumerate(table.rows)
    ]


def _aligned(header: list[str], rows: list[list[str]]) -> str:
    """Columns as wide as their widest cell: nothing is cut when the output is not a terminal."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def _tex(text: str) -> str:
    escaped = "".join("\\" + char if char in "&%$#_{}" else char for char in text)
    return escaped.replace("±", r"$\pm$").replace("→", r"$\to$")
