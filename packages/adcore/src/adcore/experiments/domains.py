"""One run over domains: fit on the source, measure on the source and on each target, all with the model in memory."""

from __future__ import annotations

import re
import resource
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adcore import pipeline
from adcore.artifact import Artifact
from adcore.data.samples import DatasetReader, select
from adcore.evaluation import evaluate as evaluation
from adcore.evaluation.page import sample_panels
from adcore.evaluation.plots import save_figure
from adcore.evaluation.score import Scoring, score_samples
from adcore.experiments.conditions import Condition
from adcore.registry import open_dataset
from adcore.training.device import pick_device

SHOWN = 4  # images drawn for each domain


def run_condition(condition: Condition, folder: Path, device: str) -> pipeline.RunResult:
    """Run a condition in `folder`, from its last checkpoint on where there is one; result.json says that it is complete."""
    domains = Domains(condition, folder, device)
    return pipeline.train(
        condition.choice,
        condition.data(),
        folder,
        device=device,
        overwrite=True,
        threshold=condition.config.threshold,
        resume=(folder / "checkpoints" / "last.safetensors").is_file(),
        tensorboard=condition.config.tensorboard,
        extend=domains.extend,
    )


class Domains:
    """What a run over domains adds to a plain run's record."""

    def __init__(self, condition: Condition, folder: Path, device: str) -> None:
        self.condition, self.folder, self.device = condition, folder, device

    def extend(self, artifact: Artifact, scorings: dict[str, Scoring], run: dict[str, Any]) -> list[Scoring]:
        """Add source_results, target_results, domain_results and what the run took; gives the targets' scored images."""
        condition, source = self.condition, self.condition.config.source_domain
        config = condition.config
        reader = open_dataset(config.dataset, str(config.dataset_root), **config.data_options)
        shown = scorings["test"] if scorings["test"].images else scorings["val"]
        self._draw(self.folder / "visualizations" / "source", shown, reader, artifact)
        measured = run["test"] if scorings["test"].images else run["val"]
        run.update(
            condition=condition.name,
            mode=condition.mode,
            source_domain=source,
            source_results={"domain": source, **flat(measured)},
            target_results={},
            domain_results={},
        )
        others = []
        for target in condition.targets:
            scoring = self._score(artifact, reader, target)
            run["target_results"][target] = self._measure(scoring, artifact)
            self._draw(self.folder / "visualizations" / "targets" / _file_name(target), scoring, reader, artifact)
            run["skipped"] += scoring.skipped
            others.append(scoring)
        if condition.targets:
            values = [results["image_auroc"] for results in run["target_results"].values()]
            run["test_image_auroc"] = None if None in values else float(np.mean(values))
        if condition.mode == "all":
            for domain in sorted({image.sample.category for image in shown.images}):
                part = Scoring([image for image in shown.images if image.sample.category == domain])
                run["domain_results"][domain] = self._measure(part, artifact)
        run["peak_memory_mb"] = peak_memory_mb()
        _log(run)
        return others

    def _score(self, artifact: Artifact, reader: DatasetReader, domain: str) -> Scoring:
        samples = select(reader.samples(domain), "test")
        skip_bad, device = self.condition.config.skip_bad, pick_device(self.device)
        return score_samples(artifact.model, artifact.preprocess, reader, samples, device, skip_bad)

    def _measure(self, scoring: Scoring, artifact: Artifact) -> dict[str, Any]:
        return flat(evaluation.measure(scoring, pipeline.threshold_of(artifact.calibration)).to_dict())

    def _draw(self, folder: Path, scoring: Scoring, reader: DatasetReader, artifact: Artifact) -> None:
        threshold = pipeline.threshold_of(artifact.calibration)
        panels = sample_panels(scoring, threshold, reader, artifact.preprocess, SHOWN)
        for number, panel in enumerate(panels, start=1):
            save_figure(panel.figure, folder / f"{number}_{_file_name(panel.title)}.png")


def _log(run: dict[str, Any]) -> None:
    """The results in words, into the run's own log."""
    groups = {"": {run["source_domain"]: run["source_results"]}, "target ": run["target_results"]}
    for role, results in (groups | {"part ": run["domain_results"]}).items():
        for domain, measured in results.items():
            known = {key: value for key, value in measured.items() if isinstance(value, float)}
            words = " ".join(f"{key} {value:.6g}" for key, value in known.items())
            print(f"{role}{domain}: {words}", flush=True)


def flat(measured: dict[str, Any]) -> dict[str, Any]:
    """{"values", "reasons"} -> the values themselves, with the reasons of the undefined ones beside them."""
    return {**measured["values"], "reasons": measured["reasons"]}


def peak_memory_mb() -> dict[str, float]:
    """The most memory that this process took: {"process"}, and {"gpu"} where one was used."""
    try:  # of this program alone; ru_maxrss may count the program that started it
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="ignore")
        peak = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024
    except (OSError, TypeError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    used = {"process": round(peak, 1)}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        used["gpu"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return used


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text)
