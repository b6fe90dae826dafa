"""One run over domains: fit on the source, measure on the source and on each target, all with the model in memory."""

from __future__ import annotations

from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from adcore import pipeline
from adcore.data.samples import select
from adcore.data.value_ranges import ValueRange, range_notes, value_ranges
from adcore.evaluation import evaluate as evaluation
from adcore.evaluation.page import PICTURES, file_name, sample_panels, save_panels
from adcore.evaluation.pool import protocol_record
from adcore.evaluation.report import DomainRow, in_words
from adcore.evaluation.score import Scoring, score_samples, without_maps
from adcore.experiments.conditions import Condition
from adcore.run_results import RunResult, write_results
from adcore.training.device import peak_memory_mb, pick_device

SHOWN = 4  # images drawn for each domain
NO_TENSORBOARD = 'no tensorboard_logs, since TensorBoard is not installed: pip install "adcore[tensorboard]"'


def run_condition(condition: Condition, folder: Path, device: str) -> RunResult:
    """Run a condition in `folder`, from its last checkpoint on where there is one; result.json says that it is complete."""
    asked = condition.config.tensorboard
    wanted = has_tensorboard() if asked is None else asked
    notes = [NO_TENSORBOARD] if asked is None and not wanted else []
    with pipeline.training(
        replace(condition.choice, notes=(*condition.choice.notes, *notes)),
        condition.data(),
        folder,
        device=device,
        overwrite=True,
        threshold=condition.config.threshold,
        resume=(folder / "checkpoints" / "last.safetensors").is_file(),
        tensorboard=wanted,
        track=condition.config.track,
        devices=condition.config.devices,
    ) as trained:
        domains = Domains(condition, trained, device)
        domains.measure()
        return write_results(
            folder,
            trained.run,
            trained.shown,
            trained.reader,
            trained.artifact,
            trained.chosen_on,
            "source",
            domains.others,
            domains.rows(),
        )


def has_tensorboard() -> bool:
    """Whether TensorBoard is installed."""
    return find_spec("tensorboard") is not None


class Domains:
    """What a run over domains adds to a plain run: measured domains, pictures of them, and its record of both."""

    def __init__(self, condition: Condition, trained: pipeline.Trained, device: str) -> None:
        self.condition, self.trained, self.device = condition, trained, device
        self.others: list[Scoring] = []  # the targets' scored images

    def measure(self) -> None:
        """Add source_results, target_results, domain_results and resources used to its record."""
        condition, run, shown = self.condition, self.trained.run, self.trained.shown
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
            pool = protocol_record(self.trained.artifact.model, (one.sample.image_path for one in scoring.images))
            if pool:  # of a model whose images score one another: which ones
                run.setdefault("target_pools", {})[target] = pool["pool"]
            self._draw(f"targets/{file_name(target)}", scoring)
            run["skipped"] += scoring.skipped
            self.others.append(without_maps(scoring))  # their scores are written with those of the source
        if condition.targets:
            values = [results["image_auroc"] for results in run["target_results"].values()]
            run["test_image_auroc"] = None if None in values else float(np.mean(values))
        if condition.mode == "all":
            for domain in sorted({image.sample.category for image in shown.images}):
                part = Scoring([image for image in shown.images if image.sample.category == domain])
                run["domain_results"][domain] = self._measure(part)
                self._draw(f"domains/{file_name(domain)}", part)
        run["peak_memory_mb"] = peak_memory_mb()
        self._tell()

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
        self._compare(value_ranges(reader, samples, artifact.preprocess.channels))
        skip_bad, device = self.condition.config.skip_bad, pick_device(self.device)
        folder = self.trained.folder
        return score_samples(artifact.model, artifact.preprocess, reader, samples, device, skip_bad, folder=folder)

    def _compare(self, ranges: list[ValueRange]) -> None:
        """Note the value ranges of a target, and where they are not those of the training images."""
        run = self.trained.run
        known = [ValueRange(**one) for one in run["value_ranges"]]
        run["value_ranges"] += [asdict(one) for one in ranges]
        notes = range_notes(known, ranges)
        run["notes"] += notes
        for line in (*(one.line for one in ranges), *(f"note: {note}" for note in notes)):
            print(line, flush=True)

    def _measure(self, scoring: Scoring) -> dict[str, Any]:
        artifact = self.trained.artifact
        return flat(evaluation.measure(scoring, artifact.threshold, artifact.pixel_threshold).to_dict())

    def _draw(self, part: str, scoring: Scoring) -> None:
        """Some samples of `scoring` below visualizations/`part`."""
        artifact, reader = self.trained.artifact, self.trained.reader
        panels = sample_panels(scoring, artifact.threshold, reader, artifact.preprocess, SHOWN)
        save_panels(panels, self.trained.folder / PICTURES / part)

    def _tell(self) -> None:
        """The results of each domain to the run's log, by the names of the report, and to the logs of the training."""
        run = self.trained.run
        parts = {f"target {name}": values for name, values in run["target_results"].items()}
        parts |= {f"domain {name}": values for name, values in run["domain_results"].items()}
        for part, values in {f"source {run['source_domain']}": run["source_results"], **parts}.items():
            print(f"{part}: {in_words(values)}", flush=True)
        for part, values in parts.items():
            self.trained.measured(part, values)
        if self.condition.targets:
            mean = {"image_auroc": run["test_image_auroc"]}
            print(f"mean of targets: {in_words(mean)}", flush=True)
            self.trained.measured("targets", mean)


def flat(measured: dict[str, Any]) -> dict[str, Any]:
    """{"values", "reasons"} -> the values themselves, with the reasons of the undefined ones beside them."""
    return {**measured["values"], "reasons": measured["reasons"]}
