"""`adcore drift MODEL FOLDER`: are the images of a folder still like those that the model was calibrated on?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from adcore.cli.common import apply_globals
from adcore.cli.start import import_libraries


@click.command("drift")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--alpha", default=0.01, show_default=True, help="Rate of false alarms, over all images and statistics together."
)
@click.option(
    "--order",
    type=click.Choice(["name", "time"]),
    default="name",
    show_default=True,
    help="Order in which the images came: by path, or by the time at which the file was last changed.",
)
@click.option("--skip-bad", is_flag=True, help="Leave unreadable images out, and list them.")
@click.option("--device", default=None, help="auto, cpu, cuda, cuda:1, ...; of a trained model.")
@click.option("--backbone-dir", type=click.Path(path_type=Path), help="Folder of backbone weights.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def command(
    model: Path,
    folder: Path,
    alpha: float,
    order: str,
    skip_bad: bool,
    device: str | None,
    backbone_dir: Path | None,
    as_json: bool,
) -> None:
    """Test whether the images below FOLDER are like those of the calibration of MODEL, a trained or exported model.

    Score, brightness, contrast, sharpness and colours are watched image by image; what drifted is named.
    """
    import_libraries()
    chosen_device = apply_globals(device, backbone_dir)
    from adcore_runtime.drift import TITLES, Monitor
    from adcore_runtime.listing import find_images

    from adcore.errors import ConfigError, DataError

    files = find_images(folder)
    if order == "time":
        files.sort(key=lambda path: path.stat().st_mtime)
    predictor = _load(model, chosen_device)
    stored = predictor.calibration.statistics
    if not stored:
        raise ConfigError(
            f"{model} stores no statistics of its calibration images; train it again, or give it some of normal images: "
            "adcore threshold MODEL --method METHOD --data NAME:ROOT --out NEW.safetensors"
        )
    monitor, seen, skipped, alarms = Monitor(stored, alpha), [], [], []
    for path in files:
        try:
            _, values = predictor.observe(path)
        except DataError as error:
            if not skip_bad:
                raise
            skipped.append({"path": str(path), "reason": str(error)})
            continue
        seen.append(path)
        alarms += [vars(one) | {"path": str(path), "text": one.text} for one in monitor.update(values)]
    evidence = monitor.evidence()
    if as_json:
        found: dict[str, Any] = {"images": len(seen), "order": order, "alpha": alpha, "drift": bool(alarms)}
        found |= {"calibration_images": len(next(iter(stored.values()))), "alarms": alarms, "evidence": evidence}
        click.echo(json.dumps(found | {"skipped": skipped}, indent=2))
        return
    for one in skipped:
        click.echo(f"     skipped  {one['reason']}", err=True)
    click.echo(
        f"{len(seen)} images by {order} against {len(next(iter(stored.values())))} of the calibration, "
        f"{alpha:g} false alarms over all of them"
    )
    for name in stored:
        raised = next((one for one in alarms if one["statistic"] == name), None)
        if raised:
            click.echo(f"DRIFT at image {raised['image']}, {raised['path']}: {raised['text']}")
        else:
            click.echo(f"{TITLES.get(name, name)}: no alarm, evidence {evidence[name]:.2g} of the limit")


def _load(model: Path, device: str) -> Any:
    """A predictor for either kind of file."""
    if model.suffix == ".onnx":
        from adcore_runtime.predictor import load as load_exported

        return load_exported(model)
    from adcore.inference.predictor import load

    return load(model, device)
