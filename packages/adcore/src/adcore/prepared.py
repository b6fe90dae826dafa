"""What a run will do, made before it starts: its images, their split, and the plan that they allow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from adcore.backbones.build import weights_only_found
from adcore.backbones.networks import without_memory
from adcore.data.roi import with_roi
from adcore.data.samples import NORMAL, DatasetReader, Sample, select
from adcore.data.splits import cross_folds, draw_shots, split_validation
from adcore.errors import AdcoreError, ConfigError, DataError
from adcore.evaluation.thresholds import check_method
from adcore.registry import create_model, open_dataset
from adcore.request import ALL, DataChoice, ModelChoice

HOLD_OUT = 0.1  # part of the training images kept for calibration when there is nothing else


@dataclass(frozen=True)
class Prepared:
    """A checked run: `choice` has the plan with its monitor."""

    choice: ModelChoice
    data: DataChoice
    reader: DatasetReader
    samples: list[Sample]
    notes: list[str]

    def images(self, split: str) -> list[Sample]:
        """The images that train or validate: normal ones, and anomalous ones for a supervised model."""
        return select(self.samples, split, None if self.choice.card.supervised else 0)

    @property
    def learned(self) -> int:
        """How many images train, where `max_steps` ends the first epoch early those before its end."""
        plan, count = self.choice.plan, len(self.images("train"))
        return min(count, plan.max_steps * plan.batch_size) if plan.max_steps else count


def prepare_run(choice: ModelChoice, data: DataChoice) -> Prepared:
    """List and split the images, and settle what validation watches.

    Raises DataError for images that are not there, ConfigError for a plan that they do not allow.
    """
    card, plan = choice.card, choice.plan
    reader = open_dataset(data.dataset, str(data.root), **data.options)
    reader.needs_training = card.training != "none"
    for asked in ("shots", "calibration") if card.training == "none" else ():
        if getattr(data, asked) is not None:
            raise ConfigError(f"{asked}={getattr(data, asked)}: {card.name} does not learn from training images")
    preprocess, reader.rois = with_roi(choice.preprocess, data.roi)
    if reader.rois and card.training == "none":
        raise ConfigError(
            f"roi={data.roi}: {card.name} compares images with one another; give one mask for all of them"
        )
    choice = replace(choice, preprocess=preprocess)
    samples, notes = split_samples(samples_of(reader, data.category), data, plan.seed)
    if data.shots is not None:
        samples, note = draw_shots(samples, data.shots, plan.seed)
        notes.append(note)
    if data.folds is not None:
        cross_folds(samples, data.folds, plan.seed)  # are there enough images
    run = Prepared(choice, data, reader, samples, [*choice.notes, *notes])
    train, val = run.images("train"), run.images("val")
    if card.supervised and not any(sample.label for sample in train):
        raise DataError(f"{card.name} learns from labelled anomalies; {data.root} has none among its training images")
    if not train and reader.needs_training:
        raise DataError(f"{data.root} has no normal training image for category '{data.category}'")
    both_kinds = {sample.label for sample in select(samples, "val")} == {0, 1}
    return replace(run, choice=replace(choice, plan=plan.watching(bool(val), both_kinds)))


def samples_of(reader: DatasetReader, category: str) -> list[Sample]:
    """The samples of one category, or with "all" of every one (unless a category is called so)."""
    categories = reader.categories() if category == ALL else []
    if category == ALL and ALL not in categories:
        return [sample for name in categories for sample in reader.samples(name)]
    return reader.samples(category)


def split_samples(samples: Sequence[Sample], data: DataChoice, seed: int) -> tuple[list[Sample], list[str]]:
    """Apply the wanted validation split; where there is nothing to calibrate on, hold out training images and say so."""
    if data.val_split != "none":
        return split_validation(samples, data.val_split, data.val_ratio, seed), []
    if data.folds is None and not select(samples, "test") and not select(samples, "val"):
        held_out = split_validation(samples, "from_train", HOLD_OUT, seed)
        count = len(select(held_out, "val"))
        return held_out, [f"no test images: {count} training images were held out to choose the threshold on"]
    return list(samples), []


def check_threshold(run: Prepared, method: str) -> None:
    """ConfigError for an unknown method, DataError where the run has too few normal images to choose such a threshold on."""
    split = "train" if run.data.folds else "val" if select(run.samples, "val") else "test"
    check_method(method, len(select(run.samples, split, NORMAL)))


def check_model(run: Prepared) -> None:
    """Build the model without memory, look for its weights without reading them, and ask it whether it can learn.

    Raises ConfigError for settings that do not go together, or images that are too few or of a wrong size, WeightsError
    for weights that are not on this machine, DataError for another file or folder of a setting that is not there.
    """
    choice = run.choice
    with weights_only_found():
        try:
            with without_memory():
                model = create_model(choice.card.name, **choice.config)
        except AdcoreError:
            raise
        except Exception:  # a model that computes with its own weights as it is made needs memory for them
            model = create_model(choice.card.name, **choice.config)
        model.check_run(run.learned, choice.preprocess.output_size)
