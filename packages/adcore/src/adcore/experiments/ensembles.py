"""Ensembles of a session's best runs: one for each source and seed, measured like a run, and found by the analysis."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adcore import artifact as artifacts
from adcore.data.samples import NORMAL, select
from adcore.ensemble import Calibration, Combine, Weights, combined
from adcore.errors import ConfigError
from adcore.evaluation import evaluate as evaluation
from adcore.evaluation.score import score_samples
from adcore.experiments.collect import ENSEMBLES, Measured, collect
from adcore.experiments.domains import flat
from adcore.experiments.record import read_condition
from adcore.files import folder_lock, new_folder, removed_on_failure
from adcore.prepared import Prepared, prepare_run
from adcore.run_results import RunResult, run_record, write_results
from adcore.training.device import device_record, peak_memory_mb, pick_device

BY_TEST = "its members were chosen by their test images, so that its result there is better than it will be on others"
TEST_CALIBRATES = "there are no validation images: normal test images make the members' scores comparable"


@dataclass(frozen=True)
class Best:
    """The best runs of one source and seed, the best first, and the name of the metric that says so."""

    source: str
    seed: int
    by: str
    runs: list[Measured]


def best_runs(session: Path, top: int, by: str) -> list[Best]:
    """The `top` runs of each source and seed by "val_METRIC" or "test_METRIC".

    ConfigError where there are fewer, where they have no such metric, or have target domains.
    """
    part, _, metric = by.partition("_")
    if part not in ("val", "test") or not metric:
        raise ConfigError(f"--by {by}: give val_METRIC, such as val_image_auroc, or test_METRIC")
    if top < 2:
        raise ConfigError("--top: an ensemble needs at least two models")
    groups: dict[tuple[str, int], list[Measured]] = defaultdict(list)
    for run in collect(session)[0]:
        if "members" not in run.result:
            groups[run.source, run.seed].append(run)
    found = []
    for (source, seed), runs in sorted(groups.items()):
        if any(run.mode != "single" for run in runs):
            raise ConfigError(f"{source}: ensembles are made of runs on one domain, without target domains")
        if len(runs) < top:
            raise ConfigError(f"{source} with seed {seed} has {len(runs)} complete runs, fewer than --top {top}")
        values = {run.method: _value(run, part, metric) for run in runs}
        found.append(Best(source, seed, by, sorted(runs, key=lambda run: -values[run.method])[:top]))
    return found


def make_ensembles(
    session: Path,
    top: int,
    by: str,
    method: str,
    combine: Combine = "mean",
    weights: Weights = (),
    device: str = "auto",
    overwrite: bool = False,
) -> Iterator[RunResult]:
    """An ensemble for each source and seed of `session`, in its folder ENSEMBLES, as each is ready.

    It is calibrated on the validation images of its runs, or without any on their test images, and measured on the test images.
    """
    chosen = best_runs(session, top, by)
    name = f"ensemble-{top}-{by}" + ("-max" if combine == "max" else "") + ("-weighted" if weights else "")
    for best in chosen:
        run = _common_run(best, needs_validation=weights == "chosen")
        folder = session / ENSEMBLES / name / f"{best.source}_seed{best.seed}".replace("/", "-")
        with folder_lock(folder), removed_on_failure(folder):
            new_folder(folder, overwrite)
            yield _make(best, run, folder, name, (method, combine, weights, device))


def _make(best: Best, run: Prepared, folder: Path, name: str, options: tuple[str, Combine, Weights, str]) -> RunResult:
    split = "val" if select(run.samples, "val", NORMAL) else "test"
    loaded = [artifacts.load(member.folder) for member in best.runs]
    images = Calibration(run.data, run.reader, select(run.samples, split), split)
    made, calibrating = combined(loaded, images, *options)
    made.training["seed"] = best.seed
    device, samples, skip_bad = pick_device(options[-1]), select(run.samples, "test"), run.data.skip_bad
    test = score_samples(
        made.model, made.preprocess, run.reader, samples, device, skip_bad, previews=True, folder=folder
    )
    notes = [BY_TEST] * best.by.startswith("test") + [TEST_CALIBRATES] * (split == "test")
    record = run_record(made, run.data, test, evaluation.count_samples(run.samples), notes)
    record |= {
        "method": name,
        "members": [member.method for member in best.runs],
        "chosen_by": best.by,
        "weights": made.model.config["weights"],
        "mode": "single",
        "source_domain": best.source,
        "seed": best.seed,
        "source_results": {"domain": best.source, **flat(record["test"])},
        "target_results": {},
        "domain_results": {},
        "skipped": test.skipped,
        "device": device_record(device),
        "peak_memory_mb": peak_memory_mb(),
    }
    record["timings"]["fit_seconds"] = sum(member.result["timings"]["fit_seconds"] for member in best.runs)
    artifacts.save(folder / artifacts.MODEL_FILE, made)
    return write_results(folder, record, test, run.reader, made, (split, calibrating))


def _common_run(best: Best, needs_validation: bool) -> Prepared:
    """Reader and samples, in the splits that the runs had; ConfigError where those are not the same."""
    prepared = []
    for member in best.runs:
        condition = read_condition(member.folder)
        prepared.append(prepare_run(condition.choice, condition.data()))
    splits = [{(sample.split, str(sample.image_path)) for sample in _measured(one)} for one in prepared]
    for member, split in zip(best.runs, splits, strict=True):
        if split != splits[0]:
            raise ConfigError(f"{best.runs[0].method} and {member.method} have other validation or test images")
    if needs_validation and not select(prepared[0].samples, "val"):
        raise ConfigError("weights are chosen on validation images, and these runs have none; set val_split_mode")
    return prepared[0]


def _measured(run: Prepared) -> Sequence[Any]:
    return [*select(run.samples, "val"), *select(run.samples, "test")]


def _value(run: Measured, part: str, metric: str) -> float:
    values = (run.result.get(part) or {}).get("values", {})
    if isinstance(values.get(metric), float):
        return values[metric]
    if part == "val" and not values:
        raise ConfigError(
            f"{run.method} on {run.source} has no validation images; train with val_split_mode from_test, or give "
            f"--by test_{metric}, whose choice makes the test result too good"
        )
    known = [key for key, value in values.items() if isinstance(value, float)]
    raise ConfigError(f"{run.method} on {run.source} has no {part}_{metric}; valid ones: {', '.join(known)}")
