"""`adcore threshold ARTIFACT --method conformal:0.01 --data ... --out NEW.safetensors`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from adcore.cli.common import THRESHOLD_HELP, apply_globals, choose_data, data_options
from adcore.cli.start import import_libraries


@click.command("threshold")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--method", help=THRESHOLD_HELP)
@click.option("--value", type=float, help="This threshold on raw scores, instead of one from images.")
@click.option("--split", type=click.Choice(["test", "train"]), help="Images of --data; test where there are some.")
@data_options(required=False)
def command(
    artifact: Path,
    method: str | None,
    value: float | None,
    split: str | None,
    data: str | None,
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
    """Give a trained model another threshold, and write it as a new model file; nothing is trained."""
    if out is None:
        raise click.UsageError("--out is needed: the new model file, such as recalibrated.safetensors")
    if (method is None) == (value is None):
        raise click.UsageError("give --method with --data, or --value")
    if (method is None) != (data is None):
        raise click.UsageError("--method and --data belong together; --value needs neither")
    import_libraries()
    chosen_device = apply_globals(device, backbone_dir)
    chosen = choose_data(data, category, pooled, pairs_of_data, metadata, skip_bad) if data else []
    if len(chosen) > 1:
        raise click.UsageError("a threshold is chosen on one category; for all of them together give --pooled")
    from adcore import artifact as artifacts
    from adcore import recalibration
    from adcore.evaluation.threshold_text import decisions_at

    loaded = artifacts.load(artifact)
    report: dict[str, object] = {"model": str(artifact), "out": str(out), "before": loaded.threshold}
    if value is not None:
        changed = recalibration.with_value(loaded, value)
    else:
        changed, scoring = recalibration.recalibrated(loaded, chosen[0], method, split, chosen_device)
        report["decisions"] = decisions_at(changed.threshold, scoring)
    recalibration.save_beside(artifact, out, changed, overwrite)
    threshold = changed.calibration["threshold"]
    if as_json:
        click.echo(json.dumps({**report, "threshold": threshold}, indent=2))
        return
    before = "none" if loaded.threshold is None else f"{loaded.threshold:.6g}"
    where = f" on {threshold['source']} images" if threshold["source"] else ""
    click.echo(f"threshold {threshold['value']:.6g} ({threshold['method']}{where}), before {before}")
    if threshold["note"] and value is None:
        click.echo(f"note: {threshold['note']}")
    if value is None:
        found = report["decisions"]
        click.echo(
            f"on these images: {found['false_alarms']} of {found['false_alarms'] + found['passed']} normal flagged, "
            f"{found['misses']} of {found['misses'] + found['found']} anomalous missed"
        )
    click.echo(str(out))
