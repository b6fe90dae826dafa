"""`adcore ensemble A.safetensors B.safetensors --data ... --out E.safetensors`, and `adcore ensemble SESSION --top 3`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adcore.cli.common import THRESHOLD_HELP, apply_globals, choose_data, data_options

if TYPE_CHECKING:
    from adcore.ensemble import Combine, Weights


@click.command("ensemble")
@click.argument("artifacts", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="MODEL MODEL...|SESSION")
@click.option("--top", type=click.IntRange(2), help="Of a session: the best so many models of each source and seed.")
@click.option(
    "--by",
    default="val_image_auroc",
    show_default=True,
    metavar="METRIC",
    help="Metric that says which are best: val_..., or test_..., which makes the test result too good.",
)
@click.option("--combine", type=click.Choice(["mean", "max"]), default="mean", show_default=True)
@click.option(
    "--weights",
    metavar="W,W,...|chosen",
    help="Weight of each model in the mean, such as 2,1,1; chosen: by the image AUROC of the images that calibrate.",
)
@click.option(
    "--threshold", "method", metavar="METHOD", default="f1_percentile", show_default=True, help=THRESHOLD_HELP
)
@click.option("--split", type=click.Choice(["test", "train"]), help="Images of --data; test where there are some.")
@data_options(required=False)
def command(
    artifacts: tuple[Path, ...],
    top: int | None,
    by: str,
    combine: Combine,
    weights: str | None,
    method: str,
    split: str | None,
    data: str | None,
    category: str | None,
    pooled: bool,
    pairs_of_data: tuple[str, ...],
    metadata: str | None,
    roi: Path | None,
    skip_bad: bool,
    out: Path | None,
    overwrite: bool,
    device: str | None,
    backbone_dir: Path | None,
    as_json: bool,
) -> None:
    """Combine trained models into one model file, whose score is the mean (or maximum) of their comparable scores.

    The normal images of --data make the scores comparable, and all its images give the threshold. With --top the best models of
    each source and seed of a session are combined, calibrated on the validation images of their runs, and measured like a run:
    results go into SESSION/ensembles, and `adcore analyze SESSION` tests whether they beat their best member.
    """
    shares = _weights(weights)
    chosen_device = apply_globals(device, backbone_dir)
    if top is not None:
        if len(artifacts) > 1 or data or out:
            raise click.UsageError("--top takes one session, whose data it knows; leave --data and --out away")
        _of_session(artifacts[0], top, by, (method, combine, shares, chosen_device, overwrite), as_json)
        return
    if not data:
        raise click.UsageError("--data is needed: its normal images make the scores comparable (a session: give --top)")
    if out is None:
        raise click.UsageError("--out is needed: the new model file, such as ensemble.safetensors")
    chosen = choose_data(data, category, pooled, pairs_of_data, metadata, skip_bad, roi)
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
    report |= {"weights": made.model.config["weights"]} if shares == "chosen" else {}
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    click.echo(f"{len(loaded)} models: {', '.join(report['members'])}")
    if shares == "chosen":
        numbers = ", ".join(f"{weight:g}" for weight in report["weights"])
        click.echo(f"Weights {numbers}, chosen on these images: measure on others")
    shown = "undefined" if auroc is None else f"{auroc:.4f}"
    click.echo(
        f"Image AUROC {shown} on the {threshold['source']} images; threshold {threshold['value']:.6g} ({threshold['method']})"
    )
    click.echo(str(out))


def _weights(text: str | None) -> Weights:
    if text == "chosen":
        return "chosen"
    try:
        return [float(part) for part in text.split(",")] if text else []
    except ValueError:
        raise click.UsageError(f"--weights {text}: give one number for each model, such as 2,1,1, or chosen") from None


def _of_session(session: Path, top: int, by: str, options: tuple[Any, ...], as_json: bool) -> None:
    """Make and show the ensembles of a session."""
    from adcore.experiments.ensembles import BY_TEST, make_ensembles

    if by.startswith("test_"):
        click.echo(f"--by {by}: {BY_TEST}; rather --by val_image_auroc", err=True)
    found = []
    for run in make_ensembles(session, top, by, *options):
        one = run.summary
        found.append(
            {
                "folder": str(run.folder),
                **{key: one[key] for key in ("members", "chosen_by", "weights", "test_image_auroc")},
            }
        )
        if not as_json:
            auroc = one["test_image_auroc"]
            shown = "undefined" if auroc is None else f"{auroc:.4f}"
            click.echo(f"{one['source_domain']}, seed {one['seed']}: {', '.join(one['members'])}: image AUROC {shown}")
            for note in one["notes"]:
                click.echo(f"  note: {note}")
            click.echo(f"  {run.folder}")
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        click.echo(f"do they beat their best member: adcore analyze {session} --by method")
