"""Normal images added to a trained model: a new model beside the old one, and both measured on the same images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from adcore_runtime.listing import find_images

from adcore import artifact as artifacts
from adcore.artifact import Artifact
from adcore.data.dataset import ImageDataset, make_loader
from adcore.data.roi import rois_for
from adcore.data.samples import NORMAL, DatasetReader, Sample, select
from adcore.errors import ConfigError
from adcore.evaluation import evaluate as evaluation
from adcore.evaluation.metrics import image_metrics
from adcore.evaluation.score import Scoring, score_samples
from adcore.evaluation.threshold_text import decisions_at
from adcore.evaluation.thresholds import check_method
from adcore.files import folder_lock, new_folder, remove_leftovers, removed_on_failure, sha256_file
from adcore.model import AnomalyModel, Fit
from adcore.prepared import samples_of, split_samples
from adcore.preprocess import EACH
from adcore.registry import open_dataset
from adcore.request import DataChoice
from adcore.run_results import clear, run_record, write_results
from adcore.training.device import device_record, pick_device
from adcore.training.plan import Plan

BATCH = 8  # images that are read for one step
BAD = "bad"  # the folder of defective images in an export of a station
GIVEN = "given"  # the method of a threshold that a person has set


@dataclass
class Updated:
    """The new model, and what both say of the same test images."""

    artifact: Artifact
    added: int  # images
    logged: dict[str, float] = field(default_factory=dict)  # by the model
    rows: list[dict[str, Any]] = field(default_factory=list)  # before, before with the threshold chosen anew, after
    notes: list[str] = field(default_factory=list)


def images_to_add(folder: Path) -> list[Sample]:
    """The images below `folder` as normal ones; ConfigError where it holds the defective ones of an export, too."""
    if (folder / BAD).is_dir():
        raise ConfigError(
            f"{folder} holds a folder {BAD}, and all its images would be learned as normal; give {folder / 'good'}"
        )
    return [Sample(path, "train", NORMAL, "") for path in find_images(folder)]


def add_images(
    artifact: Artifact,
    samples: list[Sample],
    root: Path,
    device: torch.device,
    skip_bad: bool = False,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> tuple[int, dict[str, float]]:
    """Let the model of `artifact` learn `samples`; how many of them were read, and what the model logged."""
    logged: dict[str, float] = {}
    plan = Plan(seed=artifact.training.get("seed", Plan().seed), batch_size=BATCH)
    dataset = ImageDataset(samples, DatasetReader(root), artifact.preprocess, skip_bad=skip_bad)
    loader = make_loader(dataset, BATCH, shuffle=False, seed=plan.seed)
    if loader.tiled:  # all tiles of each image, as in training
        loader.one_by_one()
    artifact.model.to(device)
    artifact.model.add_normal(
        Fit(
            plan=plan,
            device=device,
            num_images=loader.tiles or len(samples),
            train_batches=lambda: (batch.to(device) for batch in loader),
            val_batches=None,
            log=lambda key, value: logged.update({key: float(value)}),
            progress=progress,
        )
    )
    return len(samples) - len(dataset.skipped), logged


def check_can_add(model: AnomalyModel) -> None:
    """ConfigError unless a model can learn images after its training."""
    if type(model).add_normal is AnomalyModel.add_normal:
        model.add_normal(None)


def with_old_threshold(artifact: Artifact, added: int) -> Artifact:
    """With the threshold of the model before, where no images choose another; its scores are left out of the statistics."""
    calibration = dict(artifact.calibration)
    if calibration.get("threshold"):
        note = f"chosen before {added} normal images were added; adcore threshold chooses another"
        notes = [text for text in (calibration["threshold"].get("note"), note) if text]
        calibration["threshold"] = {**calibration["threshold"], "note": "; ".join(notes)}
    known = calibration.get("statistics", {})
    calibration["statistics"] = {key: known[key] for key in known if key not in ("score", "distance")}
    return replace(artifact, calibration=calibration)


def update(
    path: Path,
    folder: Path,
    out: Path,
    data: DataChoice | None = None,
    method: str | None = None,
    device: str = "auto",
    overwrite: bool = False,
    skip_bad: bool = False,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Updated:
    """Add the normal images below `folder` to the trained model `path`, and write it into the folder `out`, with a report.

    With `data` a part of its test images chooses the threshold, by `method` or as before, and the others are scored by both
    models. Without it the threshold stays. The old file stays as it is. Raises ConfigError for a model that cannot.
    """
    samples, chosen_device = images_to_add(folder), pick_device(device)
    old, new = artifacts.load(path, chosen_device), artifacts.load(path, chosen_device)
    check_can_add(new.model)
    if new.preprocess.roi == EACH:
        raise ConfigError(
            "a model with a region of interest for each image cannot be updated; train it again on all images"
        )
    source = path if path.is_dir() else path.parent
    if out.resolve() == source.resolve():
        raise ConfigError(f"{out} holds the model itself, which stays as it is; choose another --out")
    before = old.calibration.get("threshold", {}).get("method")
    held = Held.of(data, method or before, new, samples) if data else None
    with folder_lock(out), removed_on_failure(out):
        new_folder(out, overwrite)
        remove_leftovers(out, "visualizations")
        added, logged = add_images(new, samples, folder, chosen_device, skip_bad, progress)
        new.training = {**new.training, "added_images": new.training.get("added_images", 0) + added}
        clear(out, artifacts.MODEL_FILE)
        if held is None:
            new = with_old_threshold(new, added)
            artifacts.save(out / artifacts.MODEL_FILE, new)
            return Updated(new, added, logged)
        return held.measured(old, new, Updated(new, added, logged), out, chosen_device, progress)


@dataclass
class Held:
    """Test images of which a part chooses the threshold and the others measure."""

    data: DataChoice
    method: str
    reader: DatasetReader
    samples: list[Sample]
    notes: list[str]

    @classmethod
    def of(cls, data: DataChoice, method: str | None, artifact: Artifact, added: list[Sample]) -> Held:
        """From a request, whose `val_ratio` is the part; images that are `added` are left out.

        ConfigError without a method, DataError for too few images.
        """
        if method in (None, GIVEN):
            raise ConfigError("the threshold of this model was not chosen by a method; give one with --method")
        reader = open_dataset(data.dataset, str(data.root), **data.options)
        reader.needs_training, reader.rois = False, rois_for(artifact.preprocess, data.roi)
        split = replace(data, val_split="from_test")
        everything = select(samples_of(reader, data.category), "test")
        known = {sha256_file(sample.image_path) for sample in added}
        new = [sample for sample in everything if sha256_file(sample.image_path) not in known]
        samples, _ = split_samples(new, split, artifact.training.get("seed", Plan().seed))
        check_method(method, len(select(samples, "val", NORMAL)))
        fewer = len(everything) - len(new)
        return cls(
            split, method, reader, samples, [f"{fewer} test images are among those added, and left out"] * bool(fewer)
        )

    def measured(
        self,
        old: Artifact,
        new: Artifact,
        updated: Updated,
        out: Path,
        device: torch.device,
        progress: Callable[[str, int, int], None],
    ) -> Updated:
        """Choose the threshold, save the new model, score the others by both, and write the results."""

        def scored(artifact: Artifact, split: str) -> Scoring:
            chosen = select(self.samples, split)
            skip, model = self.data.skip_bad, artifact.model
            return score_samples(
                model, artifact.preprocess, self.reader, chosen, device, skip, progress, split == "test", True, out
            )

        before, after = ({split: scored(one, split) for split in ("val", "test")} for one in (old, new))
        again = replace(old, calibration=evaluation.calibrate(before["val"], self.method, "val"))
        new = replace(new, calibration=evaluation.calibrate(after["val"], self.method, "val"))
        dropped = [key for key in ("review_band", "categories") if old.calibration.get(key)]
        updated.notes = self.notes + [
            f"{key} of the model before is left out: its scores are others" for key in dropped
        ]
        updated.artifact = new
        updated.rows = [
            _row("before", before["test"], old.threshold),
            _row("before, threshold chosen anew", before["test"], again.threshold),
            _row("after", after["test"], new.threshold),
        ]
        artifacts.save(out / artifacts.MODEL_FILE, new)
        counts = evaluation.count_samples(self.samples)
        notes = [f"{updated.added} normal images were added", *map(_line, updated.rows), *updated.notes]
        run = run_record(new, self.data, after["test"], counts, notes)
        run |= {"training": new.training, "skipped": after["test"].skipped, "device": device_record(device)}
        run["update"] = {"added": updated.added, "logged": updated.logged, "rows": updated.rows}
        write_results(out, run, after["test"], self.reader, new, ("val", after["val"]))
        return updated


def _row(model: str, scoring: Scoring, threshold: float | None) -> dict[str, Any]:
    measures = image_metrics(scoring.scores, scoring.labels).values
    decisions = decisions_at(threshold, scoring) if threshold is not None else {}
    return {"model": model, "threshold": threshold, "image_auroc": measures["image_auroc"], **decisions}


def _line(row: dict[str, Any]) -> str:
    auroc = "undefined" if row["image_auroc"] is None else f"{row['image_auroc']:.4f}"
    if row["threshold"] is None:
        return f"{row['model']}: image AUROC {auroc}, no threshold"
    return (
        f"{row['model']}: image AUROC {auroc}, at threshold {row['threshold']:.6g} {row['false_alarms']} of "
        f"{row['false_alarms'] + row['passed']} normal images flagged, {row['misses']} of {row['misses'] + row['found']} missed"
    )


def lines(updated: Updated) -> list[str]:
    """What was done, to read."""
    found = [f"{updated.added} normal images added", *(f"{key} {value:g}" for key, value in updated.logged.items())]
    return found + [_line(row) for row in updated.rows] + [f"note: {note}" for note in updated.notes]
