"""`adcore update ARTIFACT --add-normal FOLDER --out NEW`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from adcore.cli.common import THRESHOLD_HELP, apply_globals, choose_data, data_options
from adcore.cli.start import import_libraries


@click.command("update")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option(
    "--add-normal",
    "folder",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder of normal images, such as false alarms.",
)
@click.option("--method", help=f"Of the new threshold, instead of the one before: {THRESHOLD_HELP}")
@click.option(
    "--val-ratio", type=float, help="Part of the test images of --data that the threshold is chosen on [0.2]."
)
@data_options(required=False)
def command(
    artifact: Path,
    folder: Path,
    method: str | None,
    val_ratio: float | None,
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
    """Add normal images to the memory bank of a trained model, as a new model; the old one stays as it is.

    With --data a part of its test images chooses the threshold anew, and the others show both models' false alarms and misses.
    """
    if out is None:
        raise click.UsageError("--out is needed: a folder for the new model and its report")
    if data is None and (method or val_ratio is not None):
        raise click.UsageError("--method and --val-ratio choose a threshold on images; they need --data")
    import_libraries()
    chosen_device = apply_globals(device, backbone_dir)
    chosen = None
    if data:
        split = ("from_test", val_ratio, None, None, False)
        chosen = choose_data(data, category, pooled, pairs_of_data, metadata, skip_bad, roi, *split)
        if len(chosen) != 1:
            raise click.UsageError("--category all gives several thresholds; choose one category, or --pooled")
    from adcore import update

    updated = update.update(
        artifact, folder, out, chosen[0] if chosen else None, method, chosen_device, overwrite, skip_bad
    )
    if as_json:
        report = {"model": str(artifact), "out": str(out), "added": updated.added, "logged": updated.logged}
        report |= {"threshold": updated.artifact.calibration.get("threshold"), "rows": updated.rows}
        click.echo(json.dumps(report | {"notes": updated.notes}, indent=2))
        return
    for line in update.lines(updated):
        click.echo(line)
    if not chosen and (threshold := updated.artifact.calibration.get("threshold")):
        click.echo(f"threshold {threshold['value']:.6g} as before; --data chooses another")
    click.echo(str(out))
