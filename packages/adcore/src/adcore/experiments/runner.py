"""Running a session: each condition in its own process."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from adcore.experiments.executors import Executor, LocalExecutor, Start, carried_environment
from adcore.experiments.session import Run, Session
from adcore.experiments.slots import CPU, Slot, environment_of, room_for

POLL = 0.2  # seconds
FRAME = 6  # lines of the table besides conditions
FULL = 64 * 1024  # bytes; a disk with fewer is full


class Runner:
    """Runs the queued runs of a session, shows their state, and updates the session's files."""

    def __init__(
        self,
        session: Session,
        slots: Sequence[Slot],
        executor: Executor | None = None,
        idle: Callable[[str], bool] | None = None,  # of a slot's device: whether a run may start there now
        console: Console | None = None,
        stagger: float = 0.0,  # seconds between two starts
        stopped: Callable[[], bool] = lambda: False,  # whether nobody reads what the runner's program prints
        jobs: int | None = None,  # runs at a time, at most
    ) -> None:
        self.session, self.slots = session, list(slots)
        self.executor = executor or LocalExecutor({})
        self.idle = idle or (lambda device: True)
        self.console, self.stopped, self.jobs = console or Console(stderr=True), stopped, jobs
        self.stagger, self.next_start = stagger, 0.0
        self.details: dict[str, str] = {}  # by folder: what a run gave
        self.unsaved = ""  # why session.json could not be written

    def run(self) -> list[Run]:
        """All queued runs; gives the failed ones. Stopped by Ctrl-C or a closed pipe, it leaves a session that can be resumed.

        Raises BrokenPipeError where `stopped` says so.
        """
        queue = [run for run in self.session.runs if run.state == "queued"]
        live = Live(get_renderable=self.table, console=self.console, refresh_per_second=2, transient=True)
        try:
            if self.console.is_terminal:
                live.start()
            while queue or any(slot.run for slot in self.slots):
                for slot in self.slots:
                    if slot.job and (code := slot.job.code()) is not None:
                        self._finish(slot, code)
                self._start_some(queue)
                if self.stopped():
                    raise BrokenPipeError
                time.sleep(POLL)
        finally:
            live.stop()
            self._stop()
        return [run for run in self.session.runs if run.state == "failed"]

    def table(self) -> Table:
        """What each condition is doing; where they are too many for the screen, first those that run or have failed."""
        states = [run.state for run in self.session.runs]
        counts = [
            f"{states.count(state)} {state}" for state in ("done", "running", "queued", "failed") if state in states
        ]
        table = Table("condition", "model", "seed", "state", "", title=", ".join(counts), title_justify="left")
        runs = self.session.runs
        if len(runs) > self.console.height - FRAME:
            runs = sorted(runs, key=lambda run: ("running", "failed", "queued", "done").index(run.state))
        for run in runs:
            detail = self._last_line(run) if run.state == "running" else run.error or self.details.get(run.folder, "")
            table.add_row(run.name, run.model, str(run.seed), run.state, detail)
        return table

    def _start_some(self, queue: list[Run]) -> None:
        """Start the first runs of the queue for which there is room; the first that needs more lets the others wait."""
        free = [slot for slot in self.slots if slot.run is None]
        if not (queue and room_for(queue[0].devices, free) and self._may_start()):
            return
        idle = [slot for slot in free if self.idle(slot.device)]
        while queue and self._may_start() and (taken := room_for(queue[0].devices, idle)):
            idle = [slot for slot in idle if slot not in taken]
            self._start(taken, queue.pop(0))

    def _may_start(self) -> bool:
        running = sum(slot.job is not None for slot in self.slots)
        return time.monotonic() >= self.next_start and (self.jobs is None or running < self.jobs)

    def _start(self, slots: Sequence[Slot], run: Run) -> None:
        self.next_start, slot = time.monotonic() + self.stagger, slots[0]
        folder, device = self.session.path(run).absolute(), CPU if slot.device == CPU else "cuda"
        threads = {} if self.session.threads is None else {"OMP_NUM_THREADS": str(self.session.threads)}
        start = Start(
            [sys.executable, "-m", "adcore.experiments.child", str(folder), device],
            folder / run.log,
            Path(self.session.directory),
            {**carried_environment(), **threads, **environment_of(slots)},
            slot.device,
            run.devices,
        )
        slot.log_start = start.log.stat().st_size if start.log.is_file() else 0
        try:
            slot.job = self.executor.start(start)
        except OSError as error:
            self._set(run, "failed", f"cannot start: {error.strerror}: {error.filename or folder}")
            return
        for slot in slots:
            slot.run = run
        self._set(run, "running")

    def _finish(self, slot: Slot, code: int) -> None:
        run = slot.run
        if code == 0 and (self.session.path(run) / "result.json").is_file():
            run.state = "done"
            row = self.session.summary(run)
            parts = [f"{key} {row[f'{key}_image_auroc']:.4f}" for key in ("source", "target") if _number(row, key)]
            self.details[run.folder] = ", ".join(parts)
            self._set(run, "done")
        else:
            self._set(run, "failed", slot.job.problem or self._reason(slot, code))
        for taken in self.slots:
            if taken.run is run:
                taken.run = taken.job = None

    def _reason(self, slot: Slot, code: int) -> str:
        if code < 0:
            name = signal.Signals(-code).name
            return f"killed by {name}" + (", maybe for want of memory" if name == "SIGKILL" else "")
        folder = self.session.path(slot.run)
        try:
            with open(folder / slot.run.log, "rb") as log:
                log.seek(slot.log_start)
                lines = log.read().decode(errors="replace").split("\n")
        except OSError:
            lines = []
        full = f"no space left on the disk of {folder}" if shutil.disk_usage(folder).free < FULL else ""
        nothing = full or f"exit code {code}, and no message"
        return next((line.strip() for line in reversed(lines) if line.strip()), nothing)

    def _last_line(self, run: Run) -> str:
        """The newest line of training_detail.log, without its date."""
        try:
            with open(self.session.path(run) / "training_detail.log", "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - 500))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            return ""
        return lines[-1][20:] if lines else ""

    def _set(self, run: Run, state: str, error: str = "") -> None:
        run.state, run.error = state, error
        detail = error or (self.details.get(run.folder, "") if state == "done" else "")
        line = f"{run.name} (seed {run.seed}): {state}{': ' if detail else ''}{detail}"
        if not self.console.is_terminal:
            self.console.print(line, soft_wrap=True, markup=False)
        try:
            self.session.log(line)
            if state == "done":
                self.session.collect_figures(run)
            self.session.save()
            self.unsaved = ""
        except OSError as problem:  # a full disk: the other runs go on
            self.unsaved = f"{problem.strerror}: {problem.filename or self.session.folder}"

    def _stop(self) -> None:
        """End what still runs, as after Ctrl-C: it can be resumed."""
        for slot in self.slots:
            if slot.job:
                slot.job.stop()
                self._set(slot.run, "queued")


def _number(row: dict[str, object], key: str) -> bool:
    return row.get(f"{key}_image_auroc") is not None
