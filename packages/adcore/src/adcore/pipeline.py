"""One run from data to report: fit, calibrate, evaluate, save. Used by the command line, Python and experiments."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from adcore import artifact as artifacts
from adcore.artifact import Artifact
from adcore.cross_calibration import cross_validated
from adcore.data.audit import training_notes
from adcore.data.roi import rois_for
from adcore.data.samples import DatasetReader, select
from adcore.data.value_ranges import range_notes, value_ranges
from adcore.errors import DataError
from adcore.evaluation import evaluate as evaluation
from adcore.evaluation.full_size import full_size_metrics
from adcore.evaluation.score import Scoring, score_samples
from adcore.evaluation.thresholds import CROSSED
from adcore.files import folder_lock, new_folder, remove_leftovers, removed_on_failure, sha256_file
from adcore.prepared import check_threshold, prepare_run, samples_of
from adcore.registry import create_model, open_dataset
from adcore.request import ALL, DataChoice, ModelChoice
from adcore.run_results import RunResult, clear, fit_record, run_record, write_results
from adcore.settings import settings
from adcore.several import Task, check_several, device_of, process_count, started
from adcore.training.callbacks import Callback
from adcore.training.device import device_record, peak_memory_mb, pick_device, seed_everything
from adcore.training.logs import DetailLog, TensorBoardLogs
from adcore.training.mlflow_logs import MlflowLogs, tracking_uri
from adcore.training_run import train_model

THRESHOLD = "f1_percentile"
OWN_THRESHOLDS = (
    "all images are decided at the common threshold; with --category they are decided at that of their category, of"
)
BEGUN = ("training_detail.log", "tensorboard_logs", "checkpoints")  # what a run writes before its first checkpoint


def run_folder(output: Path, *parts: str) -> Path:
    """A new folder name below `output`: time, then `parts`."""
    stamp = datetime.now().strftime("%Y%m%d_%H%M%S")
    name = "_".join([stamp, *parts]).replace("/", "-")
    folder, number = output / name, 2
    while folder.exists():
        folder, number = output / f"{name}_{number}", number + 1
    return folder


def folder_of(out: str | Path | None, parts: Sequence[str], alone: bool) -> Path:
    """A run's folder: `out` where it is the only run, else one below it, called by `parts`; without `out` a new one."""
    if out is None:
        return run_folder(settings().output_dir, *parts)
    return Path(out) if alone else Path(out) / "_".join(parts).replace("/", "-")


@dataclass
class Trained:
    """A run whose model is saved, before its results are written."""

    folder: Path
    artifact: Artifact
    reader: DatasetReader
    scorings: dict[str, Scoring]  # "val" and "test", and CROSSED where the threshold is chosen so
    run: dict[str, Any]  # the content of result.json
    callbacks: Sequence[Callback] = ()

    def measured(self, part: str, values: Mapping[str, Any]) -> None:
        """Tell the logs the metrics of a part of the images, such as "target domain_B"."""
        for callback in self.callbacks:
            callback.on_measured(part, values)

    @property
    def chosen_on(self) -> tuple[str, Scoring]:
        """Split and images that the threshold is chosen on: the validation images where there are some."""
        return chosen_on(self.scorings)

    @property
    def shown(self) -> Scoring:
        """The test images, or the validation images where there are no others."""
        return self.scorings["test"] if self.scorings["test"].images else self.scorings["val"]


def train(choice: ModelChoice, data: DataChoice, folder: Path, **options: Any) -> RunResult:
    """Fit, calibrate, evaluate and save; `options` are those of `training`."""
    with training(choice, data, folder, **options) as trained:
        shown, reader, artifact = trained.shown, trained.reader, trained.artifact
        return write_results(folder, trained.run, shown, reader, artifact, trained.chosen_on)


@contextmanager
def training(
    choice: ModelChoice,
    data: DataChoice,
    folder: Path,
    device: str = "auto",
    overwrite: bool = False,
    threshold: str = THRESHOLD,
    include_backbone: bool = False,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
    tensorboard: bool = False,
    track: str | None = None,
    devices: int | None = None,
) -> Iterator[Trained]:
    """Fit, calibrate, evaluate, save the model, and keep `folder` locked while the caller writes the results.

    `devices`: processes that train, on a GPU each or all on the CPU; all but this one are over when the fit is.

    On a failure nothing is left but the checkpoints of a fit that `resume` continues.
    """
    count, task = process_count(devices), Task(choice, data, device)
    chosen_device, uri = device_of(device, 0, count), tracking_uri(track) if track is not None else None
    run = prepare_run(choice, data)
    check_several(run, count)
    check_threshold(run, threshold)
    choice, reader, samples = run.choice, run.reader, run.samples
    notes = [*run.notes, *training_notes(samples, choice.card.supervised)]
    last = folder / "checkpoints" / "last.safetensors"
    callbacks = list(callbacks)
    with folder_lock(folder), removed_on_failure(folder, unless=last), _closing(callbacks):
        new_folder(folder, overwrite or (resume and (last.is_file() or only_begun(folder))))
        if resume and not last.is_file():
            notes.append(f"no checkpoint in {folder}: the run started from the beginning")
        if not (resume and last.is_file()):
            shutil.rmtree(last.parent, ignore_errors=True)
        remove_leftovers(folder, last.parent.name, "visualizations")
        seed_everything(choice.plan.seed)
        model = create_model(choice.card.name, **choice.config)
        ranges = value_ranges(reader, samples, choice.preprocess.channels)
        notes += range_notes(ranges, ranges)
        lines = [one.line for one in ranges]
        callbacks.append(DetailLog(folder / "training_detail.log", append=resume, notes=notes, lines=lines))
        if tensorboard:
            callbacks.append(TensorBoardLogs(folder / "tensorboard_logs"))
        if track is not None:
            name = f"{choice.card.name} on {data.dataset} {data.category}, seed {choice.plan.seed}"
            described = {"model": choice.card.name, "config": choice.config, "plan": choice.plan.model_dump()}
            described |= {"preprocess": choice.preprocess.to_dict(), "data": f"{data.dataset}:{data.root}"}
            callbacks.append(MlflowLogs(uri, folder, name, described | {"category": data.category}))
        resume = resume and last.is_file()
        with started(task, count) as processes:
            fitted, skipped = train_model(model, run, chosen_device, callbacks, last.parent, resume, processes)
        progress = _progress_of(callbacks)
        scorings = {
            split: score_samples(
                model,
                choice.preprocess,
                reader,
                select(samples, split),
                chosen_device,
                data.skip_bad,
                progress,
                previews=True,
                statistics=True,
                folder=folder,
            )
            for split in ("val", "test")
        }
        skipped += [entry for scoring in scorings.values() for entry in scoring.skipped]
        maps = None
        if data.folds:
            scorings[CROSSED], maps = cross_validated(run, data.folds, chosen_device, progress, folder)
        source, images = chosen_on(scorings)
        calibration = evaluation.calibrate(images, threshold, source, maps)
        summary = {
            "dataset": data.dataset,
            "category": data.category,
            "counts": evaluation.count_samples(samples),
            "epochs": fitted.epochs,
            "steps": fitted.steps,
            "seed": choice.plan.seed,
        }
        artifact = Artifact(model, choice.preprocess, calibration, summary)
        clear(folder, artifacts.MODEL_FILE)
        header = artifacts.save(folder / artifacts.MODEL_FILE, artifact, include_backbone)
        record = run_record(artifact, data, scorings["test"], summary["counts"], notes) | fit_record(choice, fitted)
        if scorings["val"].images:
            measured = evaluation.measure(scorings["val"], artifact.threshold, artifact.pixel_threshold)
            record |= {"val": measured.to_dict(), "val_image_auroc": measured.values.get("image_auroc")}
            record["timings"]["ms_per_image"] = scorings["test"].ms_per_image or scorings["val"].ms_per_image
        record["timings"] |= {"fit_seconds": fitted.seconds, "data_seconds": fitted.data_seconds}
        record["processes"] = count
        record["value_ranges"] = [asdict(one) for one in ranges]
        record["backbones"] = header["backbones"]
        record["skipped"] = skipped
        record |= {"device": device_record(chosen_device), "peak_memory_mb": peak_memory_mb()}
        record["artifact_sha256"] = sha256_file(folder / artifacts.MODEL_FILE)
        trained = Trained(folder, artifact, reader, scorings, record, callbacks)
        for split in ("val", "test"):
            if scorings[split].images:
                trained.measured(split, record[split]["values"])
        yield trained


def chosen_on(scorings: Mapping[str, Scoring]) -> tuple[str, Scoring]:
    """Split and images that the threshold is chosen on."""
    source = CROSSED if CROSSED in scorings else "val" if scorings["val"].images else "test"
    return source, scorings[source]


def only_begun(folder: Path) -> bool:
    """Whether `folder` holds nothing but what a run writes before its first checkpoint; hidden files are its locks."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return all(name in BEGUN or name.startswith(".") for name in names)


def evaluate(
    artifact: Artifact,
    data: DataChoice,
    folder: Path,
    device: str = "auto",
    overwrite: bool = False,
    source: Path | None = None,
    full_size: bool = False,
) -> RunResult:
    """Score the test images of `data` with a trained model, at its threshold, or at that of the category.

    `full_size` adds the pixel metrics on original pixels, `full_size` of result.json.

    Raises DataError where `folder` holds a trained model or `source`, the file that `artifact` was loaded from.
    """
    if data.category in artifact.calibration.get("categories", {}):
        artifact = artifact.of_category(data.category)
    chosen_device = pick_device(device)
    reader = open_dataset(data.dataset, str(data.root), **data.options)
    reader.needs_training, reader.rois = False, rois_for(artifact.preprocess, data.roi)
    samples = select(samples_of(reader, data.category), "test")
    if not samples:
        raise DataError(
            f"{data.root} has no test image for category '{data.category}'; use adcore predict for a folder"
        )
    with folder_lock(folder), removed_on_failure(folder):
        new_folder(folder, overwrite)
        if (folder / artifacts.MODEL_FILE).exists() or (source and source.parent.resolve() == folder.resolve()):
            raise DataError(f"{folder} holds a trained model, whose results stay; choose another --out")
        artifact.model.to(chosen_device)
        view, skip_bad = artifact.preprocess, data.skip_bad
        scoring = score_samples(
            artifact.model, view, reader, samples, chosen_device, skip_bad, previews=True, folder=folder
        )
        counts = evaluation.count_samples([image.sample for image in scoring.images])
        own = set(artifact.calibration.get("categories", {})) if data.category == ALL else set()
        notes = [f"{OWN_THRESHOLDS} {', '.join(sorted(own))}"] if own else []
        run = run_record(artifact, data, scoring, counts, notes)
        run |= {"training": artifact.training, "skipped": scoring.skipped}
        run |= {"device": device_record(chosen_device), "peak_memory_mb": peak_memory_mb()}
        if full_size:
            run["full_size"] = full_size_metrics(scoring, reader, artifact.preprocess).to_dict()
        clear(folder)
        return write_results(folder, run, scoring, reader, artifact)


@contextmanager
def _closing(callbacks: Sequence[Callback]) -> Iterator[None]:
    try:
        yield
    finally:
        for callback in callbacks:
            callback.close()


def _progress_of(callbacks: Sequence[Callback]) -> Any:
    def progress(what: str, done: int, total: int) -> None:
        for callback in callbacks:
            callback.on_progress(what, done, total)

    return progress
