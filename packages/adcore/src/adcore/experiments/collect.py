"""The measured runs below a folder: of sessions, or of plain `adcore train` runs, in one form."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from adcore.errors import ConfigError, suggest
from adcore.experiments.record import FILE
from adcore.experiments.session import Run, load_session

NOT_SETTINGS = (
    "model_type",
    "model",
    "source_domain",
    "domain",
    "category",
    "target_domains",
    "seed",
    "dataset_root",
    "data_root",
)


ENSEMBLES = "ensembles"  # folder of a session, with those of its runs


@dataclass(frozen=True)
class Measured:
    """One complete run."""

    method: str  # its model, or its condition where several conditions use that model on one source
    model: str
    mode: str  # single, multi or all
    source: str
    seed: int
    result: dict[str, Any]  # of result.json
    settings: dict[str, Any] = field(default_factory=dict)  # as they were written
    folder: Path | None = None  # of its files

    @property
    def domains(self) -> dict[tuple[str, str], dict[str, Any]]:
        """(domain, role) -> its metrics; roles are source, target, and part of a model over all domains."""
        result = self.result
        found = {(self.source, "source"): result["source_results"]} if self.mode != "all" else {}
        found |= {(name, "target"): one for name, one in result["target_results"].items()}
        return found | {(name, "part"): one for name, one in result["domain_results"].items()}


def collect(results: Path) -> tuple[list[Measured], list[str]]:
    """All complete runs below `results`, and a line for each other one.

    Raises ConfigError where there is none, or where a method ran twice with one seed on one source.
    """
    sessions = [results] if (results / "session.json").is_file() else [f.parent for f in results.glob("*/session.json")]
    runs, missing = _of_sessions(sessions) if sessions else (_plain(results), [])
    if not runs and not sessions:
        raise ConfigError(
            f"{results}: no session there, and no result of a run; give the folder that adcore run has printed"
        )
    if not runs:
        raise ConfigError(f"{results}: no complete run; " + (missing[0] if missing else "the session is empty"))
    seen = set()
    for run in runs:
        if (run.method, run.source, run.seed) in seen:
            raise ConfigError(
                f"{results}: {run.method} on {run.source} with seed {run.seed} was run twice; give one session"
            )
        seen.add((run.method, run.source, run.seed))
    return sorted(runs, key=lambda run: (run.method, run.source, run.seed)), missing


def check_metric(runs: Sequence[Measured], metric: str) -> None:
    """ConfigError for a metric that the runs do not have."""
    known = [key for key, value in runs[0].result["source_results"].items() if not isinstance(value, dict | str)]
    if metric not in known:
        raise ConfigError(f"no metric '{metric}'{suggest(metric, known)} valid ones: {', '.join(known)}")


def check_baseline(runs: Sequence[Measured], conditions: dict[str, str], baseline: str) -> str:
    """The method called `baseline`, which may be a condition's name; ConfigError for an unknown one."""
    known = sorted({run.method for run in runs})
    name = conditions.get(baseline, baseline)
    if name not in known:
        raise ConfigError(f"no method '{name}'{suggest(name, known)} methods: {', '.join(known)}")
    return name


def unfair(runs: Sequence[Measured], baseline: str) -> list[str]:
    """What differs between a method and the baseline beside the method itself, one line a method and setting."""
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for run in runs:
        for key, value in _conditions_of_a_comparison(run).items():
            found[run.method][key].add(str(value))
    lines = []
    for method in found:
        for key, reference in found[baseline].items():
            own = found[method].get(key, reference)
            if own != reference:
                here, there = (", ".join(sorted(values)) for values in (own, reference))
                lines.append(f"{method} and {baseline} differ in {key} ({here}; {there}), not in the method alone")
    return lines


def _conditions_of_a_comparison(run: Measured) -> dict[str, Any]:
    preprocess, plan = run.result.get("preprocess") or {}, run.result.get("plan") or {}
    values = {
        "image_size": preprocess.get("size"),
        "crop_size": preprocess.get("crop"),
        "region": preprocess.get("region"),
        "batch_size": plan.get("batch_size"),
    }
    values |= {"backbone": (run.result.get("config") or {}).get("backbone"), "seed": run.seed}
    if "members" in run.result:  # an ensemble has the batches and backbones of its members
        values = {key: value for key, value in values.items() if key not in ("batch_size", "backbone")}
    return {key: value for key, value in values.items() if preprocess or key == "seed"}


def conditions_of(results: Path) -> dict[str, str]:
    """Name of a condition -> its method."""
    sessions = [results] if (results / "session.json").is_file() else [f.parent for f in results.glob("*/session.json")]
    return _method_names([run for session in map(load_session, sorted(sessions)) for run in session.runs])


def _of_sessions(folders: Sequence[Path]) -> tuple[list[Measured], list[str]]:
    found, missing = [], []
    for session in map(load_session, sorted(folders)):
        for run in session.runs:
            result = session.result(run)
            if result:
                found.append((run, result, session.path(run)))
            else:
                missing.append(f"{run.name} (seed {run.seed}): {run.state}{': ' if run.error else ''}{run.error}")
    names = _method_names([run for run, *_ in found])
    runs = [
        Measured(names[run.name], run.model, run.mode, run.source, run.seed, result, _settings(folder), folder)
        for run, result, folder in found
    ]
    return runs + [run for folder in folders for run in _ensembles(folder)], missing


def _ensembles(session: Path) -> list[Measured]:
    """The ensembles that were made of a session's runs."""
    found = []
    for file in sorted((session / ENSEMBLES).glob("*/*/result.json")):
        one = json.loads(file.read_text(encoding="utf-8"))
        place = one["mode"], one["source_domain"], one["seed"]
        found.append(Measured(one["method"], one["model"], *place, one, {}, file.parent))
    return found


def _plain(results: Path) -> list[Measured]:
    """Runs of `adcore train` below a folder: each category is a domain."""
    runs = []
    for file in sorted(results.rglob("result.json")):
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            values = {**record["test"]["values"], "reasons": record["test"]["reasons"]}
            settings = {**record["preprocess"], "batch_size": record["plan"]["batch_size"], **record["config"]}
            category = f"{record['dataset']}/{record['category']}"
            result = {"source_results": values, "target_results": {}, "domain_results": {}, **record, "mode": "single"}
            result["peak_memory_mb"] = record.get("peak_memory_mb") or {"process": float("nan")}
            runs.append(
                Measured(
                    record["model"],
                    record["model"],
                    "single",
                    category,
                    record["plan"]["seed"],
                    result,
                    settings,
                    file.parent,
                )
            )
        except (ValueError, KeyError, TypeError):
            continue  # of `adcore evaluate` or of another program
    datasets = {run.source.partition("/")[0] for run in runs}
    if len(datasets) > 1:
        return runs
    return [replace(run, source=run.source.partition("/")[2]) for run in runs]


def _settings(folder: Path) -> dict[str, Any]:
    """The condition's settings, as they were written."""
    file = folder / FILE
    if not file.is_file():
        return {}
    return {k: v for k, v in json.loads(file.read_text(encoding="utf-8"))["config"].items() if k not in NOT_SETTINGS}


def _method_names(runs: Sequence[Run]) -> dict[str, str]:
    """Condition -> method: its model, or its own name where several conditions use that model on one source."""
    conditions: dict[tuple[str, str], set[str]] = defaultdict(set)
    for run in runs:
        conditions[run.model, run.source].add(run.name)
    several = {model for (model, _), names in conditions.items() if len(names) > 1}
    return {run.name: run.name if run.model in several else run.model for run in runs}
