"""`adcore analyze RESULTS`: tables of a session, with transfer and significance."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("analyze")
@click.argument("results", type=click.Path(path_type=Path))
@click.option("--baseline", metavar="NAME", help="Method (or condition) that every other one is tested against.")
@click.option("--metric", default="image_auroc", show_default=True)
@click.option(
    "--format", "kind", type=click.Choice(["table", "csv", "latex", "html"]), default="table", show_default=True
)
@click.option("--out", type=click.Path(path_type=Path), help="Write to this file instead of the terminal.")
def command(results: Path, baseline: str | None, metric: str, kind: str, out: Path | None) -> None:
    """Mean and deviation over seeds, transfer ratio, domain gap and p-values of the session(s) in RESULTS.

    HTML goes to RESULTS/analysis.html unless --out names another file.
    """
    from adcore.experiments import present
    from adcore.experiments.analyze import analyze
    from adcore.files import write_text

    analysis = analyze(results, metric, baseline)
    makers = {"table": present.as_text, "csv": present.as_csv, "latex": present.as_latex, "html": present.as_html}
    text = makers[kind](analysis)
    if kind == "html" and out is None:
        out = results / "analysis.html"
    if out is None:
        click.echo(text, nl=False)
        return
    write_text(out, text)
    click.echo(f"written: {out}")
    for line in present.notes(analysis):
        click.echo(line, err=True)
