"""`adcore compare`: models on one's own data, as an experiment whose conditions are written for the user."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adcore.data.roi import Rois, open_rois
from adcore.errors import ConfigError
from adcore.experiments import tables
from adcore.experiments.collect import Measured, check_metric, collect
from adcore.experiments.comparison import leaderboard, write_comparison
from adcore.experiments.tables import MEAN, Table
from adcore.files import write_json
from adcore.request import ALL, DataChoice

CONDITIONS, PAGE, BEST = "conditions.json", "comparison.html", 3
HEADER = ["rank", "method", "training", "seeds", "mean", "mean rank", "training, s", "ms per image", "memory, MB"]


def write_conditions(
    folder: Path, models: Sequence[str], data: Sequence[DataChoice], settings: Mapping[str, Any]
) -> Path:
    """The conditions file of a comparison: every model on every category of `data`, which differ in the category alone."""
    first = data[0]
    base = {"dataset": first.dataset, "dataset_root": str(first.root.absolute()), "skip_bad": first.skip_bad}
    base |= {"data_options": first.options} if first.options else {}
    base |= {"roi": str(first.roi.absolute())} if first.roi else {}
    for key in settings.keys() & {"model_type", "source_domain", *base}:
        raise ConfigError(f"--set {key}: the comparison sets it itself")
    grid = {"model_type": list(models), "source_domain": [one.category for one in data]}
    write_json(folder / CONDITIONS, {"base": base | dict(settings), "grid": grid})
    return folder / CONDITIONS


def present(folder: Path, session: Path, metric: str) -> tuple[Table, dict[str, list[str]]]:
    """Write the page over the session's runs; the leaderboard, and for each category the models of the best methods."""
    runs, _ = collect(session)
    check_metric(runs, metric)
    write_comparison([session], folder / PAGE, metric)
    groups = tables.group_runs(runs, metric)
    board = Table(f"{metric}, mean over domains", HEADER, leaderboard(groups, runs))
    ordered = sorted(groups, key=lambda group: -(group.spread(MEAN)[0] or 0.0))
    best = list(dict.fromkeys(group.method for group in ordered))[:BEST]
    return board, {source: _files(runs, source, best) for source in {run.source for run in runs}}


def ensemble_commands(data: Sequence[DataChoice], files: Mapping[str, list[str]], folder: Path) -> list[str]:
    """The commands that combine the best models, one for each category that has two or more of them."""
    commands = []
    for one in data:
        members = files.get(one.category, [])
        if len(members) < 2:
            continue
        target = f"{one.dataset}:{one.root}"
        own = isinstance(one.roi and open_rois(one.roi), Rois)  # of each image: the models do not store it
        chosen = ["--category", one.category] if one.category != ALL else ["--pooled"]
        out = folder / f"ensemble_{one.category}.safetensors"
        chosen += ["--roi", str(one.roi)] if own else []
        commands.append(shlex.join(["adcore", "ensemble", *members, "--data", target, *chosen, "--out", str(out)]))
    return commands


def several(models: Sequence[str]) -> None:
    """ConfigError unless there are two models or more, each once."""
    if len(set(models)) < 2 or len(set(models)) < len(models):
        raise ConfigError("give at least two models, each once; adcore list-models shows them")


def _files(runs: Sequence[Measured], source: str, best: Sequence[str]) -> list[str]:
    """Model files of the best methods on one source, of the lowest seed."""
    found = {}
    for run in sorted(runs, key=lambda run: -run.seed):
        if run.source == source and run.folder:
            found[run.method] = str(run.folder)
    return [found[method] for method in best if method in found]
