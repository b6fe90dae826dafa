"""`adcore predict ARTIFACT IMAGE|FOLDER [--out DIR]`, on this machine or a Ray cluster."""

from __future__ import annotations

import json
from contextlib import closing, nullcontext
from dataclasses import asdict
from pathlib import Path

import click
from adcore_runtime.help_texts import CATEGORY, FULL_SIZE, MIN_AREA, PIXEL_THRESHOLD, REGIONS, REVIEW_BAND, SAVE_CROPS

from adcore.cli.common import apply_globals, parse_settings, run_options
from adcore.cli.start import import_libraries


@click.command("predict")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--skip-bad", is_flag=True, help="Leave unreadable images out, and list them.")
@click.option("--resume", is_flag=True, help="Go on with what a killed command has left in --out.")
@click.option("--workers", type=click.IntRange(1), help="Processes that score on the CPU; of Ray: one a GPU or core.")
@click.option("--executor", type=click.Choice(["local", "ray"]), default="local", help="ray: a cluster scores SOURCE.")
@click.option("--executor-option", multiple=True, metavar="KEY=VALUE", help="Of ray.init, such as address=auto.")
@click.option("--category", help=CATEGORY)
@click.option(
    "--roi",
    type=click.Path(exists=True, path_type=Path),
    help="Regions of interest of the images, for a model that was trained with one for each: a folder of masks, or JSON.",
)
@click.option("--regions", is_flag=True, help=REGIONS)
@click.option("--pixel-threshold", type=float, help=PIXEL_THRESHOLD)
@click.option("--min-area", type=float, help=MIN_AREA)
@click.option("--save-crops", is_flag=True, help=SAVE_CROPS)
@click.option("--full-size", is_flag=True, help=FULL_SIZE)
@click.option("--review-band", metavar="LOW,HIGH", help=REVIEW_BAND)
def command(
    artifact: Path,
    source: Path,
    skip_bad: bool,
    resume: bool,
    workers: int | None,
    executor: str,
    executor_option: tuple[str, ...],
    category: str | None,
    roi: Path | None,
    regions: bool,
    pixel_threshold: float | None,
    min_area: float | None,
    save_crops: bool,
    full_size: bool,
    review_band: str | None,
    out: Path | None,
    overwrite: bool,
    device: str | None,
    backbone_dir: Path | None,
    as_json: bool,
) -> None:
    """Score an image or all images below a folder; --out keeps predictions.csv, maps (float TIFF) and overlays.

    A model that learns nothing, such as musc, is called by its name, and takes a folder. With `--executor ray` SOURCE may be a
    glob or a CSV or Parquet list, too, and --out gets predictions.parquet alone.
    """
    if resume and out is None:
        raise click.UsageError("--resume needs --out, the folder of the command to go on with")
    if save_crops and out is None:
        raise click.UsageError("--save-crops needs --out, the folder to save them in")
    if full_size and out is None:
        raise click.UsageError("--full-size needs --out, the folder to save the maps in")
    pictures = save_crops or full_size or regions or pixel_threshold is not None or min_area is not None
    if executor == "ray" and (out is None or resume or pictures or roi):
        raise click.UsageError(
            "--executor ray writes a table into --out and nothing else; give --out, and leave out --resume, --full-size, --roi "
            "and what asks for regions"
        )
    if executor_option and executor == "local":
        raise click.UsageError("--executor-option goes with --executor ray")
    import_libraries()
    chosen_device = apply_globals(device, backbone_dir)
    from adcore_runtime.rows import RowOptions, printed

    from adcore.artifact import read_header
    from adcore.data.dataset import Skipped
    from adcore.evaluation.pool import protocol_record
    from adcore.files import folder_lock, new_folder, only_leftovers
    from adcore.inference.batch import predict_files
    from adcore.inference.cluster import Cluster
    from adcore.inference.predictor import load
    from adcore.inference.workers import Workers
    from adcore.tensorfile import CHECKSUM
    from adcore.training.callbacks import ProgressBar

    rows, skipped = [], []
    with folder_lock(out) if out else nullcontext(), closing(ProgressBar()) as bar:
        if out:
            new_folder(out, overwrite or (resume and only_leftovers(out)))
        predictor = load(artifact, chosen_device, category=category)
        stored = read_header(artifact)[CHECKSUM] if artifact.exists() else predictor.model.card.name
        given = f" {roi.absolute()}" if roi else ""
        origin = f"{stored} {source.absolute()} {predictor.device} {category}{given}" if out else ""
        calibration = predictor.calibration
        options = RowOptions.chosen(regions, pixel_threshold, min_area, review_band, save_crops, calibration, full_size)
        if executor == "ray":
            engine = parse_settings(executor_option, "--executor-option")
            cluster = Cluster(artifact, category, engine, workers, chosen_device)
            found = cluster.predict_files(predictor, source, out, skip_bad, options)
        else:
            several = Workers(workers, artifact, category, roi) if workers and workers > 1 else None
            found = predict_files(
                predictor, source, out, skip_bad, origin, resume, options, several, bar.on_progress, roi
            )
        for one in found:
            bad = isinstance(one, Skipped)
            if as_json:
                (skipped if bad else rows).append(asdict(one) if bad else one)
            elif bad:
                click.echo(f"     skipped  {one.reason}", err=True)
            else:
                click.echo(printed(one))
    if as_json:
        protocol = protocol_record(predictor.model, [Path(row["path"]) for row in rows])
        click.echo(json.dumps({"predictions": rows, "skipped": skipped, **protocol}, indent=2, allow_nan=False))
        return
    if out:
        click.echo(f"written to {out}")


for option in reversed(run_options):
    command = option(command)
