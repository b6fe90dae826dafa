"""`adcore export ARTIFACT --to onnx|openvino|triton --out DIR`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click

from adcore.cli.common import apply_globals, check_lines
from adcore.errors import ConfigError


@click.command("export")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--to", default="onnx", show_default=True, help="onnx, openvino, triton, or the exporter of a plugin.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the files.")
@click.option("--name", default="model", show_default=True, help="Name of the files, and of Triton's model.")
@click.option(
    "--camera", metavar="HxW", help="Take uint8 frames of this height and width, and preprocess in the graph."
)
@click.option("--check", type=click.Path(path_type=Path), help="Folder of at least 8 images to compare the results on.")
@click.option("--batch", type=click.IntRange(min=1), help="Take this number of images only, instead of any.")
@click.option("--dynamic-batch", is_flag=True, help="Take any number of images: the default.")
@click.option("--overwrite", is_flag=True, help="Replace files of that name.")
@click.option("--backbone-dir", type=click.Path(path_type=Path), help="Folder of backbone weights.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def command(
    artifact: Path,
    to: str,
    out: Path,
    name: str,
    camera: str | None,
    check: Path | None,
    batch: int | None,
    dynamic_batch: bool,
    overwrite: bool,
    backbone_dir: Path | None,
    as_json: bool,
) -> None:
    """Write a trained model for other programs, once it gives the same results there as here."""
    if batch and dynamic_batch:
        raise click.UsageError("--batch and --dynamic-batch exclude each other; give one of them")
    size = _size(camera) if camera else None
    apply_globals("cpu", backbone_dir)
    from adcore.export.run import export_model

    say = (lambda text: None) if as_json else click.echo
    exported = export_model(artifact, to, out, size, check, batch, name, overwrite, say)
    if as_json:
        files = [str(path) for path in exported.files]
        click.echo(json.dumps({"path": str(exported.path), "files": files, **exported.record}, indent=2))
        return
    for line in check_lines(exported.record["check"]):
        click.echo(line)
    size = sum(path.stat().st_size for path in exported.files) / 1e6
    click.echo(f"written to {exported.path} ({size:.1f} MB)")


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if not found:
        raise ConfigError(f"--camera {text}: give height x width in pixels, such as 1200x1600")
    return int(found[1]), int(found[2])
