"""Running a session: each condition in a process of its own, so that none can harm another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.table import Table

from adcore.errors import ConfigError
from adcore.experiments.session import Run, Session

POLL = 0.2  # seconds
CPU = "cpu"


@dataclass
class Slot:
    """A place where one run at a time may go: the CPU, or a GPU by its number."""

    device: str
    process: subprocess.Popen | None = None
    run: Run | None = None
    log_start: int = 0  # where this attempt begins in the run's log


def pick_slots(gpus: str, jobs: int | None) -> list[Slot]:
    """Slots for `jobs` runs at a time. `gpus`: "auto" (all there are, else the CPU), "none", or numbers such as "0,2"."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus == "auto":
        devices = [str(number) for number in range(count)] or [CPU]
    elif gpus == "none":
        devices = [CPU]
    else:
        devices = [part.strip() for part in gpus.split(",")]
        wrong = [part for part in devices if not part.isdecimal() or int(part) >= count]
        if wrong:
            raise ConfigError(
                f"--gpus {gpus}: there is no GPU '{wrong[0]}', torch sees {count}; use --gpus auto or none"
            )
    return [Slot(devices[number % len(devices)]) for number in range(jobs or len(devices))]


class Runner:
    """Runs the queued runs of a session, shows them, and keeps the session's files true."""

    def __init__(self, session: Session, slots: Sequence[Slot], console: Console | None = None) -> None:
        self.session, self.slots = session, list(slots)
        self.console = console or Console(stderr=True)
        self.unsaved = ""  # why session.json could not be written

    def run(self) -> list[Run]:
        """All queued runs; gives the failed ones. Stopped by Ctrl-C, it leaves a session that can be resumed."""
        queue = [run for run in self.session.runs if run.state == "queued"]
        live = Live(get_renderable=self.table, console=self.console, refresh_per_second=2, transient=True)
        try:
            if self.console.is_terminal:
                live.start()
            while queue or any(slot.run for slot in self.slots):
                for slot in self.slots:
                    if slot.run is None and queue:
                        self._start(slot, queue.pop(0))
                    elif slot.process and slot.process.poll() is not None:
                        self._finish(slot)
                time.sleep(POLL)
        finally:
            live.stop()
            self._stop()
        return [run for run in self.session.runs if run.state == "failed"]

    def table(self) -> Table:
        """What each condition is doing."""
        table = Table("condition", "model", "seed", "state", "")
        for run in self.session.runs:
            detail = run.error if run.state == "failed" else self._last_line(run) if run.state == "running" else ""
            table.add_row(run.name, run.model, str(run.seed), run.state, detail)
        return table

    def _start(self, slot: Slot, run: Run) -> None:
        gpu = {} if slot.device == CPU else {"CUDA_VISIBLE_DEVICES": slot.device}
        folder = self.session.path(run)
        command = [sys.executable, "-m", "adcore.experiments.child", str(folder), CPU if slot.device == CPU else "cuda"]
        try:
            with open(folder / run.log, "ab") as log:
                slot.log_start = log.tell()
                slot.process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,  # closed by our end, however it comes about: the child stops
                    stdout=log,
                    stderr=log,
                    env={**os.environ, **gpu},
                    pass_fds=[self.session.lock.fileno()],  # the session is free once its last child is gone
                    start_new_session=True,  # Ctrl-C is for the runner, which then stops the others
                )
        except OSError as error:
            self._set(run, "failed", f"cannot start: {error.strerror}: {error.filename or folder}")
            return
        slot.run = run
        self._set(run, "running")

    def _finish(self, slot: Slot) -> None:
        run, code = slot.run, slot.process.returncode
        slot.process.stdin.close()
        complete = (self.session.path(run) / "result.json").is_file()
        if code == 0 and complete:
            self._set(run, "done")
        else:
            self._set(run, "failed", self._reason(slot, code))
        slot.run = slot.process = None

    def _reason(self, slot: Slot, code: int) -> str:
        if code < 0:
            name = signal.Signals(-code).name
            return f"killed by {name}" + (", maybe for want of memory" if name == "SIGKILL" else "")
        try:
            with open(self.session.path(slot.run) / slot.run.log, "rb") as log:
                log.seek(slot.log_start)
                lines = log.read().decode(errors="replace").split("\n")
        except OSError:
            lines = []
        return next((line.strip() for line in reversed(lines) if line.strip()), f"exit code {code}, and no message")

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
        if not self.console.is_terminal:
            self.console.print(
                f"{run.name} (seed {run.seed}): {state}{': ' if error else ''}{error}", soft_wrap=True, markup=False
            )
        try:
            self.session.save()
            self.unsaved = ""
        except OSError as problem:  # a full disk: the other runs go on
            self.unsaved = f"{problem.strerror}: {problem.filename or self.session.folder}"

    def _stop(self) -> None:
        """End what still runs, as after Ctrl-C: it can be resumed."""
        left = [slot for slot in self.slots if slot.process]
        for slot in left:
            slot.process.stdin.close()
        for slot in left:
            try:
                slot.process.wait(10)
            except subprocess.TimeoutExpired:
                slot.process.kill()
                slot.process.wait()
            self._set(slot.run, "queued")
