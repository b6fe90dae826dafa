"""`adcore analyze RESULTS`: tables of a session, with transfer and significance."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from adcore.experiments.analyze import Analysis
    from adcore.experiments.tables import Table


@click.command("analyze")
@click.argument("results", type=click.Path(path_type=Path))
@click.option("--baseline", metavar="NAME", help="Method (or condition) that every other one is tested against.")
@click.option(
    "--metric", "metrics", multiple=True, metavar="NAME", help="Metric [image_auroc]; may be given several times."
)
@click.option(
    "--by",
    type=click.Choice(["seed", "domain", "category", "method"]),
    help="Tables: seed by domain; method by domain (or category); transfer, ranks and settings by method.",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["table", "csv", "latex", "markdown", "html"]),
    default="table",
    show_default=True,
)
@click.option("--out", type=click.Path(path_type=Path), help="Write to this file instead of the terminal.")
def command(
    results: Path, baseline: str | None, metrics: tuple[str, ...], by: str | None, kind: str, out: Path | None
) -> None:
    """Mean and deviation over seeds, transfer ratio, domain gap and p-values of the sessions or runs in RESULTS.

    HTML is the page of `adcore report` with all tables, and goes to RESULTS/analysis.html unless --out names another file.
    """
    from adcore.experiments import present
    from adcore.experiments.analyze import analyze
    from adcore.experiments.comparison import write_comparison
    from adcore.files import write_text

    metrics = metrics or ("image_auroc",)
    analyses = [analyze(results, metric, baseline) for metric in metrics]
    first = analyses[0]
    notes = present.notes(first)
    if kind == "csv" and by is None:
        text = "".join(map(present.as_csv, analyses))
    else:
        tables = [table for analysis in analyses for table in _overview(analysis)] if by is None else []
        wanted = ("seed", "domain", "method") if kind == "html" and by is None else (by,)
        tables += _tables(results, metrics, first.baseline, wanted)
        makers = {"table": present.as_text, "csv": present.tables_as_csv, "latex": present.as_latex}
        makers["markdown"] = present.as_markdown
        text = "" if kind == "html" else makers[kind](tables, notes)
    if kind == "html":
        out = out or results / "analysis.html"
        write_comparison([results], out, metrics[0], first.baseline, tables, notes)
    elif out is None:
        click.echo(text, nl=False)
        return
    else:
        write_text(out, text)
    click.echo(f"written: {out}")
    for line in notes:
        click.echo(line, err=True)


def _overview(analysis: Analysis) -> list[Table]:
    from adcore.experiments import present

    return [present.domain_table(analysis), present.method_table(analysis)]


def _tables(results: Path, metrics: tuple[str, ...], baseline: str | None, by: tuple[str | None, ...]) -> list[Table]:
    """The tables that --by names, for each metric."""
    from adcore.experiments import tables
    from adcore.experiments.collect import collect

    runs, _ = collect(results)
    found = []
    for metric in metrics:
        groups = tables.group_runs(runs, metric)
        if "seed" in by:
            found += tables.seed_tables(groups, metric)
        if "domain" in by or "category" in by:
            found += tables.domain_tables(groups, metric)
            found += tables.test_tables(groups, metric, baseline) if baseline else []
        if "method" in by:
            found += [*tables.transfer_tables(runs, metric), *tables.ranking_tables(groups, metric)]
        if "method" in by or None in by:
            found += tables.ensemble_tables(runs, metric)
    return found + (tables.settings_table(runs) if "method" in by else [])
