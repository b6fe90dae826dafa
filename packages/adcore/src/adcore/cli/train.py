"""`adcore train MODEL --data mvtec:ROOT --category bottle`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from adcore.cli.common import THRESHOLD_HELP, apply_globals, choose_data, data_options, parse_settings, show_runs

if TYPE_CHECKING:
    from adcore.request import DataChoice
    from adcore.run_results import RunResult


@click.command("train")
@click.argument("model")
@data_options()
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="Any setting of `adcore info MODEL`.")
@click.option("--epochs", type=int, help="Passes over the training images.")
@click.option("--batch-size", type=int)
@click.option("--seed", type=int)
@click.option("--num-workers", type=int, help="Processes that read images.")
@click.option("--devices", type=int, help="Processes that train one model together: on a GPU each, or all on the CPU.")
@click.option("--cache", type=click.Choice(["auto", "memory", "disk", "off"]), help="Where images are kept once read.")
@click.option("--val-split", type=click.Choice(["none", "from_train", "from_test"]), help="Validation images.")
@click.option("--val-ratio", type=float, help="Part that --val-split takes [0.2]; alone it means from_train.")
@click.option("--shots", type=int, help="Train on so many normal images, drawn by the seed; the rest is not used.")
@click.option(
    "--calibration", metavar="cv:K", help="Choose the threshold on training images, by K-fold cross-validation."
)
@click.option("--threshold", metavar="METHOD", default="f1_percentile", show_default=True, help=THRESHOLD_HELP)
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in --out.")
@click.option("--tensorboard", is_flag=True, help="Write TensorBoard logs (pip install adcore[tensorboard]).")
@click.option(
    "--track", metavar="mlflow[:URI]", help="Send settings, metrics and files to MLflow (pip install adcore[mlflow])."
)
@click.option("--include-backbone", is_flag=True, help="Put the backbone's weights into the model file.")
def command(
    model: str,
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
    pairs: tuple[str, ...],
    epochs: int | None,
    batch_size: int | None,
    seed: int | None,
    num_workers: int | None,
    devices: int | None,
    cache: str | None,
    val_split: str | None,
    val_ratio: float | None,
    shots: int | None,
    calibration: str | None,
    threshold: str,
    resume: bool,
    tensorboard: bool,
    track: str | None,
    include_backbone: bool,
) -> None:
    """Train MODEL, evaluate it, and write model.safetensors, result.json, predictions.csv and report.html."""
    if resume and out is None:
        raise click.UsageError("--resume needs --out, the folder of the run to go on with")
    chosen_device = apply_globals(device, backbone_dir)
    named = {"epochs": epochs, "batch_size": batch_size, "seed": seed, "num_workers": num_workers, "cache": cache}
    overrides = parse_settings(pairs) | {key: value for key, value in named.items() if value is not None}
    from adcore.request import choose_model  # heavy from here on

    choice = choose_model(model, overrides)
    split = val_split, val_ratio, shots, calibration, choice.card.training != "none"
    chosen = choose_data(data, category, pooled, pairs_of_data, metadata, skip_bad, roi, *split)
    from adcore import pipeline, several
    from adcore.training.callbacks import ProgressBar

    own = several.torchrun()
    if own and not own.first:
        for one in chosen:
            several.follow_torchrun(several.Task(choice, one, chosen_device), own)
        return

    def train(one: DataChoice) -> RunResult:
        return pipeline.train(
            choice,
            one,
            pipeline.folder_of(out, (choice.card.name, one.dataset, one.category), alone=len(chosen) == 1),
            device=chosen_device,
            overwrite=overwrite,
            threshold=threshold,
            include_backbone=include_backbone,
            callbacks=[ProgressBar()],
            resume=resume,
            tensorboard=tensorboard,
            track=track,
            devices=devices,
        )

    show_runs(map(train, chosen), as_json, alone=len(chosen) == 1)
