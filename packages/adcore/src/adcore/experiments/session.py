"""A session: the folder that holds the runs of one `adcore run`, and the state of each."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from adcore_runtime.csv_cells import Writer

from adcore.errors import ConfigError
from adcore.evaluation.compare import transfer
from adcore.experiments.conditions import Condition, with_seed
from adcore.experiments.record import write_condition
from adcore.files import atomic_path, folder_lock, remove_leftovers, write_json

State = Literal["queued", "running", "done", "failed"]
COLUMNS = ("name", "model", "mode", "source", "seed", "state", "source_image_auroc", "target_image_auroc")
FIGURE = "Image AUROC"  # in lines of logs
COLUMNS += ("transfer_ratio", "domain_gap", "error")


@dataclass
class Run:
    """One condition with one seed; `folder` is the name of its folder within the session's."""

    name: str
    model: str
    mode: str
    source: str
    targets: tuple[str, ...]
    seed: int
    folder: str
    log: str
    state: State = "queued"
    error: str = ""
    devices: int = 1  # processes that train it together


@dataclass
class Session:
    """The runs and their folder. `save` updates session.json and summary.csv."""

    folder: Path
    runs: list[Run]
    conditions_file: str
    directory: str  # where `adcore run` was called: relative paths in the conditions start there
    threads: int | None = None  # of each run; stored, since another number changes the last bits of sums
    lock: ExitStack = field(default_factory=ExitStack, repr=False)

    def path(self, run: Run) -> Path:
        """The folder of a run."""
        return self.folder / run.folder

    def result(self, run: Run) -> dict[str, Any] | None:
        """The content of a run's result.json; None where it is not complete."""
        file = self.path(run) / "result.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None

    def save(self) -> None:
        """Write session.json and summary.csv, atomically."""
        runs = [asdict(run) for run in self.runs]
        head = {"conditions_file": self.conditions_file, "directory": self.directory, "threads": self.threads}
        write_json(self.folder / "session.json", {**head, "runs": runs})
        with (
            atomic_path(self.folder / "summary.csv") as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as file,
        ):
            writer = Writer(file, COLUMNS)
            for run in self.runs:
                writer.write(self.summary(run))

    def log(self, line: str) -> None:
        """Add a line with the time to session.log."""
        with open(self.folder / "session.log", "a", encoding="utf-8") as file:
            print(datetime.now().strftime("%Y-%m-%d %H:%M:%S"), line, file=file)

    def collect_figures(self, run: Run) -> None:
        """Add the run's figures to the session's file of the same name as the run's log, where people search for them."""
        log = self.path(run) / run.log
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
        newest = {
            line.partition(":")[0]: line for line in lines if FIGURE in line
        }  # a killed run may have said them before
        if newest:
            with open(self.folder / run.log, "a", encoding="utf-8") as file:
                file.writelines(f"{run.name} (seed {run.seed}), {line}\n" for line in newest.values())

    def take(self, patience: float = 5.0) -> None:
        """Lock the session for this process, until `close`; ConfigError when another one keeps it."""
        self.lock.enter_context(folder_lock(self.folder, patience))  # a killed runner takes a moment to end

    def close(self) -> None:
        """Release the lock."""
        self.lock.close()

    def summary(self, run: Run) -> dict[str, Any]:
        """The run's row in summary.csv."""
        row: dict[str, Any] = {
            key: getattr(run, key) for key in ("name", "model", "mode", "source", "seed", "state", "error")
        }
        result = self.result(run) if run.state == "done" else None
        if result:
            targets = [target.get("image_auroc") for target in result["target_results"].values()]
            measured = transfer(result["source_results"].get("image_auroc"), targets)
            row |= {"source_image_auroc": measured.source, "target_image_auroc": measured.target_mean}
            row |= {"transfer_ratio": measured.ratio, "domain_gap": measured.gap}
        return row


def plan_runs(conditions: Sequence[Condition], seeds: Sequence[int], repeat: int = 1) -> list[Condition]:
    """Each condition for each of `seeds`; without them, `repeat` times from its own seed on.

    ConfigError where a condition would run twice with one seed, since its file has several seeds already.
    """
    planned = {}
    for condition in conditions:
        for seed in seeds or range(condition.seed, condition.seed + repeat):
            if (condition.name, seed) in planned:
                raise ConfigError(
                    f"condition '{condition.name}' would run twice with seed {seed}; the file has seeds of its own, "
                    "leave out --seeds and --repeat"
                )
            planned[condition.name, seed] = with_seed(condition, seed)
    return list(planned.values())


def create_session(
    output: Path, planned: Sequence[Condition], conditions_file: Path, threads: int | None = None
) -> Session:
    """A new folder below `output`, named by the time, with a folder and condition.json for each planned run."""
    stamp = datetime.now().strftime("%Y%m%d_%H%M%S")
    output.mkdir(parents=True, exist_ok=True)
    folder, number = output / stamp, 2
    while True:
        try:
            folder.mkdir()
            break
        except FileExistsError:
            folder, number = output / f"{stamp}_{number}", number + 1
    repeated = len({condition.name for condition in planned}) < len(planned)
    runs: list[Run] = []
    for condition in planned:
        name, config = _file_name(condition.name), condition.config
        part = f"{name}_seed{condition.seed}" if repeated else name
        taken = {run.folder for run in runs}
        part = next(p for p in _numbered(f"{part}_{stamp}") if p not in taken)
        log = {"single": f"{_file_name(config.source_domain)}_single.log", "multi": f"multi_domain_{name}.log"}
        run = Run(
            condition.name,
            condition.choice.card.name,
            condition.mode,
            config.source_domain,
            condition.targets,
            condition.seed,
            part,
            log.get(condition.mode, f"all_domains_{name}.log"),
            devices=config.devices,
        )
        write_condition(folder / part, condition)
        runs.append(run)
    session = Session(folder, runs, str(conditions_file.absolute()), str(Path.cwd()), threads)
    session.take()
    session.save()
    return session


def load_session(folder: Path) -> Session:
    """The session of a folder, as session.json tells it; ConfigError where there is none."""
    file = folder / "session.json"
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        runs = [Run(**{**run, "targets": tuple(run["targets"])}) for run in record["runs"]]
        return Session(folder, runs, record["conditions_file"], record["directory"], record["threads"])
    except FileNotFoundError:
        raise ConfigError(f"{folder} is not a session: it has no session.json") from None
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ConfigError(f"{file} is not what adcore writes ({error}); the session cannot be used") from None


def resume_session(folder: Path) -> Session:
    """The locked session with complete runs done and all others queued again."""
    session = load_session(folder)
    session.take()
    remove_leftovers(folder)  # in its own folder each run does it: one may still be at work there
    for run in session.runs:
        run.state, run.error = ("done" if session.result(run) else "queued"), ""
    session.save()
    return session


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.+-]+", "_", text).lstrip(".")[:80] or "condition"  # file systems take 255 bytes


def _numbered(name: str) -> Any:
    yield name
    number = 2
    while True:
        yield f"{name}_{number}"
        number += 1
