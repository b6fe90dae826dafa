"""The training part of a run: loaders, validation and checkpoints around the trainer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic_core import to_jsonable_python

from adcore.data.dataset import ImageDataset, Loader, make_loader
from adcore.data.samples import DatasetReader, Sample, select
from adcore.errors import DataError
from adcore.evaluation.metrics import image_metrics
from adcore.evaluation.score import score_samples
from adcore.model import AnomalyModel
from adcore.request import DataChoice, ModelChoice
from adcore.training.callbacks import Callback
from adcore.training.trainer import Trainer, TrainingSummary

MAY_CHANGE = {"epochs", "max_steps", "steps_per_epoch", "num_workers", "checkpoint_seconds"}  # on a resume


def train_model(
    model: AnomalyModel,
    choice: ModelChoice,
    data: DataChoice,
    reader: DatasetReader,
    samples: Sequence[Sample],
    device: torch.device,
    callbacks: Sequence[Callback] = (),
    checkpoints: Path | None = None,
    resume: bool = False,
) -> tuple[TrainingSummary, list[dict[str, str]]]:
    """Train `model` on the training samples, from the last of the `checkpoints` on with `resume`.

    Gives the summary, and path and reason of each file that was skipped.
    """
    card, plan = choice.card, choice.plan
    chosen = select(samples, "train", None if card.supervised else 0)
    if card.supervised and not any(sample.label for sample in chosen):
        raise DataError(f"{card.name} learns from labelled anomalies; {data.root} has none among its training images")

    def dataset_of(samples: list[Sample]) -> ImageDataset:
        return ImageDataset(samples, reader, choice.preprocess, skip_bad=data.skip_bad)

    def loader(dataset: ImageDataset, shuffle: bool) -> Loader:
        return make_loader(dataset, plan.batch_size, shuffle=shuffle, seed=plan.seed, num_workers=plan.num_workers)

    def image_auroc(model: AnomalyModel) -> float:
        scoring = score_samples(model, choice.preprocess, reader, val_samples, device, data.skip_bad)
        return image_metrics(scoring.scores, scoring.labels)["image_auroc"]

    dataset, val_samples = dataset_of(chosen), select(samples, "val")
    trainer = Trainer(
        model,
        plan,
        loader(dataset, shuffle=True),
        num_images=len(dataset),
        device=device,
        fixed_loader=lambda: loader(dataset, shuffle=False),
        val_loader=(lambda: loader(dataset_of(val_samples), shuffle=False)) if val_samples else None,
        validate=image_auroc if {sample.label for sample in val_samples} == {0, 1} else None,
        callbacks=callbacks,
        checkpoints=checkpoints,
        identity=run_identity(choice, data, len(dataset)),
    )
    return trainer.run(resume), dataset.skipped


def run_identity(choice: ModelChoice, data: DataChoice, images: int) -> dict[str, Any]:
    """What must be the same for a checkpoint to be continued."""
    return {
        "model": choice.card.name,
        "config": choice.config,
        "plan": choice.plan.model_dump(exclude=MAY_CHANGE),
        "preprocess": choice.preprocess.to_dict(),
        "data": f"{data.dataset} {data.category}",
        "data_options": to_jsonable_python(data.options),
        "images": images,
    }
