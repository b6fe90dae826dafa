"""What a run leaves behind: its record, result.json, predictions.csv and report.html."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic_core import to_jsonable_python

import adcore
from adcore.artifact import MODEL_FILE, Artifact
from adcore.data.samples import DatasetReader
from adcore.evaluation import evaluate as evaluation
from adcore.evaluation.metrics import Metrics
from adcore.evaluation.page import HISTOGRAM, PICTURES, draw, write_page
from adcore.evaluation.pool import protocol_record
from adcore.evaluation.report import DomainRow
from adcore.evaluation.score import Scoring
from adcore.evaluation.threshold_text import threshold_rows, threshold_text
from adcore.files import write_json, write_text
from adcore.request import DataChoice, ModelChoice
from adcore.training.trainer import TrainingSummary

RESULT, THRESHOLDS = "result.json", "thresholds.txt"
PARTS = ("test", "val", "source", "targets", "domains")  # of visualizations/


@dataclass
class RunResult:
    """The result of a run; `folder` holds the files."""

    folder: Path
    metrics: Metrics
    summary: dict[str, Any]  # the content of result.json
    predictions: list[dict[str, Any]] = field(repr=False, default_factory=list)

    @property
    def artifact(self) -> Path:
        """The trained model's file."""
        return self.folder / MODEL_FILE


def clear(folder: Path, *names: str) -> None:
    """Remove the results of the run that is overwritten and the files `names`; result.json first."""
    for name in (RESULT, "predictions.csv", "report.html", THRESHOLDS, HISTOGRAM, *names):
        (folder / name).unlink(missing_ok=True)
    for part in PARTS:
        shutil.rmtree(folder / PICTURES / part, ignore_errors=True)


def versions() -> dict[str, str]:
    """Versions of adcore, torch and Python."""
    return {"adcore": adcore.__version__, "torch": torch.__version__, "python": platform.python_version()}


def run_record(
    artifact: Artifact,
    data: DataChoice,
    test: Scoring,
    counts: dict[str, dict[str, int]],
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """What result.json says of any run: the model, the data, and the metrics of the test images."""
    measured = evaluation.measure(test, artifact.threshold, artifact.pixel_threshold)
    return {
        "model": artifact.model.card.name,
        "dataset": data.dataset,
        "category": data.category,
        "data_root": str(data.root),
        "data_options": to_jsonable_python(data.options),
        "shots": data.shots,
        "calibration": data.calibration,
        "roi": None if data.roi is None else str(data.roi),
        **protocol_record(artifact.model, (image.sample.image_path for image in test.images)),
        "test": measured.to_dict(),
        "test_image_auroc": measured.values.get("image_auroc"),
        "intervals": evaluation.intervals(test),
        "defects": evaluation.defect_rows(test, artifact.threshold),
        "threshold": artifact.calibration.get("threshold"),
        "timings": {"ms_per_image": test.ms_per_image},
        "counts": counts,
        "config": artifact.model.config,
        "preprocess": artifact.preprocess.to_dict(),
        "versions": versions(),
        "notes": list(notes),
    }


def fit_record(choice: ModelChoice, fitted: TrainingSummary) -> dict[str, Any]:
    """What result.json says of a fit; the metrics of validation images, where there are some, replace None."""
    return {
        "val": None,
        "val_image_auroc": None,
        "stop_reason": fitted.stop_reason,
        "losses": fitted.losses,
        "history": fitted.history,
        "logged": fitted.logged,
        "plan": choice.plan.model_dump(exclude={"steps_per_epoch"}),
    }


def write_results(
    folder: Path,
    run: dict[str, Any],
    scoring: Scoring,
    reader: DatasetReader,
    artifact: Artifact,
    chosen_on: tuple[str, Scoring] | None = None,
    part: str | None = None,
    others: Sequence[Scoring] = (),
    domains: Sequence[DomainRow] = (),
) -> RunResult:
    """predictions.csv (with the `others`), report.html (with a row for each of `domains`), pictures, thresholds.txt.

    `scoring` are the images shown; `chosen_on`: split and images that thresholds are chosen on, by default the same;
    `part`: the folder of pictures, by default the split. The last file is result.json: it marks the run as complete.
    """
    threshold = artifact.threshold
    rows = evaluation.prediction_rows(scoring, threshold)
    everything = [row for other in others for row in evaluation.prediction_rows(other, threshold)]
    if rows or everything:
        evaluation.write_predictions(folder / "predictions.csv", [*rows, *everything])
    pictures = draw(scoring, run["threshold"], reader, artifact.preprocess)
    if scoring.images:
        split = scoring.images[0].sample.split
        source, images = chosen_on or (split, scoring)
        run["thresholds"] = threshold_rows(scoring, images, source, run["threshold"])
        write_text(folder / THRESHOLDS, threshold_text(scoring, split, source, run["threshold"], run["thresholds"]))
        pictures.save(folder, part or split)
    write_page(folder / "report.html", run, rows, pictures, domains)
    write_json(folder / RESULT, run)
    return RunResult(folder, Metrics(run["test"]["values"], run["test"]["reasons"]), run, rows)
