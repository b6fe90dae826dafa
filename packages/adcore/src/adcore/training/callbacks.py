"""Callbacks: they see every step, epoch, validation and logged value of a fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from adcore.training.trainer import Trainer


class Callback:
    """Base of all callbacks; every method does nothing unless it is overridden."""

    each_step = False  # whether `on_step_end` must be called after each step on a GPU too, which makes it wait

    def on_fit_start(self, trainer: Trainer) -> None:
        """After the model's own `on_fit_start`, before the first batch."""

    def on_step_end(self, trainer: Trainer, logs: dict[str, float]) -> None:
        """After each batch, on a GPU after the last of some; `logs` has the losses of its updates."""

    def on_epoch_end(self, trainer: Trainer) -> None:
        """After each epoch."""

    def on_validation_end(self, trainer: Trainer, value: float) -> None:
        """After each validation, with the monitored value."""

    def on_log(self, trainer: Trainer, key: str, value: float) -> None:
        """A hook of the model has logged `value`; a hook that prepares the model does so before `on_fit_start`."""

    def on_progress(self, what: str, done: int, total: int) -> None:
        """A hook of the model has done `done` of `total` parts of `what`."""

    def on_fit_end(self, trainer: Trainer) -> None:
        """After the model's own `on_fit_end`, or when training failed."""

    def on_measured(self, part: str, values: Mapping[str, Any]) -> None:
        """After the fit: the metrics of a part of the images, such as "test" or "target domain_B"; None: undefined."""

    def close(self) -> None:
        """At the end of the run, also of a failed one."""


class ProgressBar(Callback):
    """Steps, losses, steps per second and time left on a terminal; nothing is shown elsewhere."""

    def __init__(self, console: Console | None = None) -> None:
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[info]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console or Console(stderr=True),
            transient=True,
        )
        self.tasks: dict[str, int] = {}
        self.logged: dict[str, float] = {}

    def on_fit_start(self, trainer: Trainer) -> None:
        """Show the bar."""
        self.progress.start()
        self.tasks["train"] = self.progress.add_task("train", total=trainer.fit.plan.total_steps, info="")

    def on_step_end(self, trainer: Trainer, logs: dict[str, float]) -> None:
        """Move the bar and show the losses."""
        rate = trainer.fit.step / max(self.progress.tasks[self.tasks["train"]].elapsed or 0, 1e-9)
        values = (self.logged | logs).items()
        info = " ".join(f"{key} {value:.4g}" for key, value in values)
        info += f" {rate:.2f} steps/s, {trainer.data_share:.0%} waiting for images"
        self.progress.update(self.tasks["train"], completed=trainer.fit.step, info=info)

    def on_log(self, trainer: Trainer, key: str, value: float) -> None:
        """Show the value from now on."""
        self.logged[key] = value

    def on_progress(self, what: str, done: int, total: int) -> None:
        """Show one bar for each `what`."""
        if what not in self.tasks:
            self.progress.start()
            self.tasks[what] = self.progress.add_task(what, total=total, info="")
        self.progress.update(self.tasks[what], completed=done, total=total)

    def close(self) -> None:
        """Remove the bars, if there are any; where there is no terminal, stopping writes an empty line."""
        if self.tasks:
            self.progress.stop()
