"""`adcore report SESSION|FOLDER...`: one page over many runs."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("report")
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--metric", default="image_auroc", show_default=True, help="Metric that methods are compared by.")
@click.option("--baseline", metavar="NAME", help="Method that every other one is tested against.")
@click.option("--out", type=click.Path(path_type=Path), help="The page [comparison.html in the first folder].")
def command(results: tuple[Path, ...], metric: str, baseline: str | None, out: Path | None) -> None:
    """Write one page over the sessions or runs in RESULTS: leaderboard, heat map, seeds, ROC curves, links to reports."""
    from adcore.experiments.comparison import write_comparison

    out = out or results[0] / "comparison.html"
    write_comparison(results, out, metric, baseline)
    click.echo(f"written: {out}")
