"""`adcore threshold ARTIFACT --method conformal:0.01 --data ... --out NEW.safetensors`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from adcore_runtime.help_texts import REVIEW_BAND

from adcore.cli.common import THRESHOLD_HELP, apply_globals, choose_data, data_options
from adcore.cli.start import import_libraries


@click.command("threshold")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--method", help=THRESHOLD_HELP)
@click.option("--value", type=float, help="This threshold on raw scores, instead of one from images.")
@click.option("--review-band", metavar="LOW,HIGH", help=REVIEW_BAND)
@click.option("--split", type=click.Choice(["test", "train"]), help="Images of --data; test where there are some.")
@data_options(required=False)
def command(
    artifact: Path,
    method: str | None,
    value: float | None,
    review_band: str | None,
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
    """Give a trained model another threshold, and write it as a new model file; nothing is trained.

    --category all gives each category a threshold of its own; --review-band stores three answers.
    """
    if out is None:
        raise click.UsageError("--out is needed: the new model file, such as recalibrated.safetensors")
    if (method is None) == (value is None) and not (review_band and method is None):
        raise click.UsageError("give --method with --data, or --value, or --review-band")
    if (method is None) != (data is None):
        raise click.UsageError("--method and --data belong together; --value needs neither")
    import_libraries()
    chosen_device = apply_globals(device, backbone_dir)
    chosen = choose_data(data, category, pooled, pairs_of_data, metadata, skip_bad, roi) if data else []
    from adcore_runtime.rows import parse_band

    from adcore import artifact as artifacts
    from adcore import recalibration
    from adcore.evaluation.threshold_text import decisions_at
    from adcore.request import ALL

    band = parse_band(review_band) if review_band else None
    loaded = changed = artifacts.load(artifact)
    decisions: dict[str, dict[str, Any]] = {}  # by category; "" for the common threshold
    if value is not None:
        changed = recalibration.with_value(loaded, value)
    elif category == ALL and data:
        changed, scorings = recalibration.by_category(loaded, chosen, method, split, chosen_device)
        thresholds = changed.calibration["categories"]
        decisions = {name: decisions_at(thresholds[name]["value"], one) for name, one in scorings.items()}
    elif chosen:
        changed, scoring = recalibration.recalibrated(loaded, chosen[0], method, split, chosen_device)
        decisions = {"": decisions_at(changed.threshold, scoring)}
    if band:
        changed = recalibration.with_band(changed, band)
    recalibration.save_beside(artifact, out, changed, overwrite)
    calibration = changed.calibration
    if as_json:
        report = {"model": str(artifact), "out": str(out), "before": loaded.threshold}
        report |= {key: calibration[key] for key in ("threshold", "categories", "review_band") if key in calibration}
        report |= {"decisions": decisions.get("", decisions)} if decisions else {}
        click.echo(json.dumps(report, indent=2))
        return
    before = "none" if loaded.threshold is None else f"{loaded.threshold:.6g}"
    if category == ALL and data:
        for name in decisions:
            _show(f"{name}: threshold", calibration["categories"][name], "", decisions[name])
    elif value is not None or decisions:
        _show("threshold", calibration["threshold"], f", before {before}", decisions.get(""))
    if band:
        click.echo(f"review band: good below {band[0]:.6g}, bad from {band[1]:.6g} on, between them to be looked at")
    click.echo(str(out))


def _show(title: str, threshold: dict[str, Any], before: str, found: dict[str, Any] | None) -> None:
    where = f" on {threshold['source']} images" if threshold["source"] else ""
    click.echo(f"{title} {threshold['value']:.6g} ({threshold['method']}{where}){before}")
    if found is None:  # a value that was given
        return
    if threshold["note"]:
        click.echo(f"note: {threshold['note']}")
    click.echo(
        f"on these images: {found['false_alarms']} of {found['false_alarms'] + found['passed']} normal flagged, "
        f"{found['misses']} of {found['misses'] + found['found']} anomalous missed"
    )
