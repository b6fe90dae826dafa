"""The training part of a run: loaders, validation and checkpoints around the trainer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic_core import to_jsonable_python

from adcore.data.cache import make_cache
from adcore.data.dataset import ImageDataset, Loader, make_loader
from adcore.data.samples import Sample, select
from adcore.evaluation.metrics import image_metrics
from adcore.evaluation.score import score_samples
from adcore.model import AnomalyModel, BatchModel
from adcore.prepared import Prepared
from adcore.preprocess import EACH
from adcore.request import DataChoice, ModelChoice
from adcore.training.callbacks import Callback
from adcore.training.processes import Processes
from adcore.training.trainer import Trainer, TrainingSummary

MAY_CHANGE = {"epochs", "max_steps", "steps_per_epoch", "num_workers", "checkpoint_seconds", "cache"}  # on a resume


def train_model(
    model: AnomalyModel,
    run: Prepared,
    device: torch.device,
    callbacks: Sequence[Callback] = (),
    checkpoints: Path | None = None,
    resume: bool = False,
    processes: Processes = Processes(),  # noqa: B008 (frozen)
) -> tuple[TrainingSummary, list[dict[str, str]]]:
    """Train `model` on the training images of `run`, from the last of the `checkpoints` on with `resume`.

    A BatchModel learns nothing. Of several `processes` all call this, and the first one's model is the trained one.
    Gives the summary, and path and reason of each file that was skipped.
    """
    choice, data, plan = run.choice, run.data, run.choice.plan
    if isinstance(model, BatchModel):
        model.to(device).eval()
        model.fitted = True
        return TrainingSummary(epochs=0, steps=0, seconds=0.0), []
    model.check_run(run.learned, choice.preprocess.output_size)
    checkpoints, resume = processes.same((checkpoints, resume))

    def dataset_of(samples: list[Sample]) -> ImageDataset:
        return ImageDataset(samples, run.reader, choice.preprocess, skip_bad=data.skip_bad, seed=plan.seed)

    def loader(dataset: ImageDataset, shuffle: bool) -> Loader:
        return make_loader(dataset, plan.batch_size, shuffle=shuffle, seed=plan.seed, num_workers=plan.num_workers)

    def image_auroc(model: AnomalyModel) -> float:
        scoring = score_samples(model, choice.preprocess, run.reader, val_samples, device, data.skip_bad, maps=False)
        return image_metrics(scoring.scores, scoring.labels)["image_auroc"]

    dataset, val_samples, val_losses = dataset_of(run.images("train")), select(run.samples, "val"), run.images("val")
    trainer = Trainer(
        model,
        plan,
        loader(dataset, shuffle=True),
        num_images=len(dataset),
        device=device,
        fixed_loader=lambda: loader(dataset, shuffle=False),
        val_loader=(lambda: loader(dataset_of(val_samples), shuffle=False)) if val_samples else None,
        loss_loader=(lambda: loader(dataset_of(val_losses), shuffle=False)) if val_losses else None,
        validate=image_auroc if {sample.label for sample in val_samples} == {0, 1} else None,
        callbacks=callbacks,
        checkpoints=checkpoints,
        identity=run_identity(choice, data, len(dataset)),
        processes=processes,
    )
    with keeping_images(dataset, choice, checkpoints, processes.count):
        return trainer.run(resume), dataset.skipped


@contextmanager
def keeping_images(
    dataset: ImageDataset, choice: ModelChoice, folder: Path | None, processes: int = 1
) -> Iterator[None]:
    """Inside, a training of several passes decodes each image of `dataset` once, as the plan's `cache` says.

    Each of several processes keeps the images that it reads, in the end all.
    """
    plan, preprocess = choice.plan, choice.preprocess
    passes = (
        plan.epochs if plan.max_steps is None else min(plan.epochs, plan.max_steps * plan.batch_size / len(dataset))
    )
    read_once = not preprocess.tile and preprocess.roi != EACH  # each pass sees another tile, and reads the masks
    if choice.card.training == "gradient" and passes > 1 and read_once:
        room = folder.parent if folder else None  # of the run
        dataset.cache = make_cache(
            plan.cache, len(dataset), preprocess.channels, preprocess.output_size, room, processes
        )
    try:
        yield
    finally:
        cache, dataset.cache = dataset.cache, None
        if cache:
            cache.close()


def run_identity(choice: ModelChoice, data: DataChoice, images: int) -> dict[str, Any]:
    """What must be the same for a checkpoint to be continued."""
    return {
        "model": choice.card.name,
        "config": choice.config,
        "plan": choice.plan.model_dump(exclude=MAY_CHANGE),
        "preprocess": choice.preprocess.to_dict(),
        "data": f"{data.dataset} {data.category}",
        "data_options": to_jsonable_python(data.options),
        "shots": data.shots,
        "images": images,
    }
