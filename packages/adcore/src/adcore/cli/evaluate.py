"""`adcore evaluate ARTIFACT --data ... --category ...`."""

from __future__ import annotations

from pathlib import Path

import click

from adcore.cli.common import apply_globals, choose_data, data_options, show_run
from adcore.cli.start import import_libraries


@click.command("evaluate")
@click.argument("artifact", type=click.Path(path_type=Path))
@data_options
def command(
    artifact: Path,
    data: str,
    category: str | None,
    pairs_of_data: tuple[str, ...],
    metadata: str | None,
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
    chosen = choose_data(data, category, pairs_of_data, metadata, skip_bad)
    from adcore import artifact as artifacts
    from adcore import pipeline
    from adcore.settings import settings

    loaded = artifacts.load(artifact)
    parts = ("evaluate", loaded.model.card.name, chosen.dataset, chosen.category)
    folder = out or pipeline.run_folder(settings().output_dir, *parts)
    show_run(pipeline.evaluate(loaded, chosen, folder, chosen_device, overwrite, source=artifact), as_json)
