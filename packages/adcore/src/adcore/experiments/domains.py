"""One run over domains: fit on the source, measure on the source and on each target, all with the model in memory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from adcore import pipeline
from adcore.data.samples import select
from adcore.evaluation import evaluate as evaluation
from adcore.evaluation.page import sample_panels
from adcore.evaluation.plots import save_figure
from adcore.evaluation.report import DomainRow
from adcore.evaluation.score import Scoring, score_samples
from adcore.experiments.conditions import Condition
from adcore.run_results import RunResult, write_results
from adcore.training.device import peak_memory_mb, pick_device

SHOWN = 4  # images drawn for each domain


def run_condition(condition: Condition, folder: Path, device: str) -> RunResult:
    """Run a condition in `folder`, from its last checkpoint on where there is one; result.json says that it is complete."""
    with pipeline.training(
        condition.choice,
        condition.data(),
        folder,
        device=device,
        overwrite=True,
        threshold=condition.config.threshold,
        resume=(folder / "checkpoints" / "last.safetensors").is_file(),
        tensorboard=condition.config.tensorboard,
    ) as trained:
        domains = Domains(condition, trained, device)
        domains.measure()
        return write_results(
            folder, trained.run, trained.shown, trained.reader, trained.artifact, domains.others, domains.rows()
        )


class Domains:
    """What a run over domains adds to a plain run: measured domains, pictures of them, and its record of both."""

    def __init__(self, condition: Condition, trained: pipeline.Trained, device: str) -> None:
        self.condition, self.trained, self.device = condition, trained, device
        self.others: list[Scoring] = []  # the targets' scored images

    def measure(self) -> None:
        """Add source_results, target_results, domain_results and resources used to its record."""
        condition, run, shown = self.condition, self.trained.run, self.trained.shown
        self._draw("source", shown)
        source = condition.config.source_domain
        run.update(
            condition=condition.name,
            mode=condition.mode,
            source_domain=source,
            source_results={
                "domain": source,
                **flat(run["test"] if self.trained.scorings["test"].images else run["val"]),
            },
            target_results={},
            domain_results={},
        )
        for target in condition.targets:
            scoring = self._score(target)
            run["target_results"][target] = self._measure(scoring)
            self._draw(f"targets/{_file_name(target)}", scoring)
            run["skipped"] += scoring.skipped
            self.others.append(scoring)
        if condition.targets:
            values = [results["image_auroc"] for results in run["target_results"].values()]
            run["test_image_auroc"] = None if None in values else float(np.mean(values))
        if condition.mode == "all":
            for domain in sorted({image.sample.category for image in shown.images}):
                part = Scoring([image for image in shown.images if image.sample.category == domain])
                run["domain_results"][domain] = self._measure(part)
        run["peak_memory_mb"] = peak_memory_mb()
        _log(run)

    def rows(self) -> list[DomainRow]:
        """A row a domain for the report, where the run has measured several."""
        run = self.trained.run
        targets, parts = run["target_results"], run["domain_results"]
        if not targets and not parts:
            return []
        first = ("all domains", "together") if parts else (run["source_domain"], "source")
        rows = [(*first, run["source_results"])]
        rows += [(name, "target", one) for name, one in targets.items()]
        rows += [(name, "part", one) for name, one in parts.items()]
        return [DomainRow(name, role, measured, measured["reasons"]) for name, role, measured in rows]

    def _score(self, domain: str) -> Scoring:
        artifact, reader = self.trained.artifact, self.trained.reader
        samples = select(reader.samples(domain), "test")
        skip_bad, device = self.condition.config.skip_bad, pick_device(self.device)
        return score_samples(artifact.model, artifact.preprocess, reader, samples, device, skip_bad)

    def _measure(self, scoring: Scoring) -> dict[str, Any]:
        return flat(evaluation.measure(scoring, self.trained.artifact.threshold).to_dict())

    def _draw(self, part: str, scoring: Scoring) -> None:
        """Some samples of `scoring` below visualizations/`part`."""
        artifact, reader = self.trained.artifact, self.trained.reader
        threshold = artifact.threshold
        panels = sample_panels(scoring, threshold, reader, artifact.preprocess, SHOWN)
        for number, panel in enumerate(panels, start=1):
            path = self.trained.folder / "visualizations" / part / f"{number}_{_file_name(panel.title)}.png"
            save_figure(panel.figure, path)


def _log(run: dict[str, Any]) -> None:
    """Write the results to the run's log."""
    groups = {"": {run["source_domain"]: run["source_results"]}, "target ": run["target_results"]}
    for role, results in (groups | {"part ": run["domain_results"]}).items():
        for domain, measured in results.items():
            known = {key: value for key, value in measured.items() if isinstance(value, float)}
            words = " ".join(f"{key} {value:.6g}" for key, value in known.items())
            print(f"{role}{domain}: {words}", flush=True)


def flat(measured: dict[str, Any]) -> dict[str, Any]:
    """{"values", "reasons"} -> the values themselves, with the reasons of the undefined ones beside them."""
    return {**measured["values"], "reasons": measured["reasons"]}


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text)
