"""`adcore ensemble A.safetensors B.safetensors --data ... --out E.safetensors`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from adcore.cli.common import THRESHOLD_HELP, apply_globals, choose_data, data_options


@click.command("ensemble")
@click.argument("artifacts", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--combine", type=click.Choice(["mean", "max"]), default="mean", show_default=True)
@click.option("--weights", metavar="W,W,...", help="Weight of each model in the mean, such as 2,1,1.")
@click.option(
    "--threshold", "method", metavar="METHOD", default="f1_percentile", show_default=True, help=THRESHOLD_HELP
)
@click.option("--split", type=click.Choice(["test", "train"]), help="Images of --data; test where there are some.")
@data_options()
def command(
    artifacts: tuple[Path, ...],
    combine: str,
    weights: str | None,
    method: str,
    split: str | None,
    data: str,
    category: str | None,
    pooled: bool,
    pairs_of_data: tuple[str, ...],
    metadata: str | None,
    skip_bad: bool,
    out: Path | None,
    overwrite: bool,
    device: str | None,
    backbone_dir: Path | None,
    as_json: bool,
) -> None:
    """Combine trained models into one model file, whose score is the mean (or maximum) of their comparable scores.

    The normal images of --data make the scores comparable, and all its images give the threshold.
    """
    if out is None:
        raise click.UsageError("--out is needed: the new model file, such as ensemble.safetensors")
    try:
        shares = [float(part) for part in weights.split(",")] if weights else []
    except ValueError:
        raise click.UsageError(f"--weights {weights}: give one number for each model, such as 2,1,1") from None
    chosen_device = apply_globals(device, backbone_dir)
    chosen = choose_data(data, category, pooled, pairs_of_data, metadata, skip_bad)
    if len(chosen) > 1:
        raise click.UsageError("models are combined for one category; for all of them together give --pooled")
    from adcore import artifact as stored
    from adcore.ensemble import make_ensemble
    from adcore.evaluation.metrics import image_metrics
    from adcore.recalibration import check_new

    check_new(out, artifacts, overwrite)
    loaded = [stored.load(path) for path in artifacts]
    made, scoring = make_ensemble(loaded, chosen[0], method, split, combine, shares, chosen_device)
    stored.save(out, made)
    auroc = image_metrics(scoring.scores, scoring.labels).values["image_auroc"]
    threshold = made.calibration["threshold"]
    report = {"out": str(out), "members": made.training["members"], "threshold": threshold, "image_auroc": auroc}
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    click.echo(f"{len(loaded)} models: {', '.join(report['members'])}")
    shown = "undefined" if auroc is None else f"{auroc:.4f}"
    click.echo(
        f"Image AUROC {shown} on the {threshold['source']} images; threshold {threshold['value']:.6g} ({threshold['method']})"
    )
    click.echo(str(out))
