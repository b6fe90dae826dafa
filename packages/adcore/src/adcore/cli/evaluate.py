"""`adcore evaluate ARTIFACT --data ... --category ...`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from adcore.cli.common import apply_globals, choose_data, data_options, show_runs
from adcore.cli.start import import_libraries

if TYPE_CHECKING:
    from adcore.request import DataChoice
    from adcore.run_results import RunResult


@click.command("evaluate")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--full-size", is_flag=True, help="Pixel metrics also on the pixels of the original images.")
@data_options()
def command(
    artifact: Path,
    full_size: bool,
    data: str,
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
    """Score the test images with a trained model and report."""
    import_libraries()
    chosen_device = apply_globals(device, backbone_dir)
    chosen = choose_data(data, category, pooled, pairs_of_data, metadata, skip_bad, roi, needs_training=False)
    from adcore import artifact as artifacts
    from adcore import pipeline

    loaded = artifacts.load(artifact)

    def evaluate(one: DataChoice) -> RunResult:
        parts = ("evaluate", loaded.model.card.name, one.dataset, one.category)
        folder = pipeline.folder_of(out, parts, alone=len(chosen) == 1)
        return pipeline.evaluate(loaded, one, folder, chosen_device, overwrite, artifact, full_size)

    show_runs(map(evaluate, chosen), as_json, alone=len(chosen) == 1)
