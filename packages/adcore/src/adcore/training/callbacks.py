"""What can watch a fit: callbacks see every step and epoch, and may ask the trainer to stop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from adcore.training.trainer import Trainer


class Callback:
    """Base of all callbacks; every method may be left as it is."""

    def on_fit_start(self, trainer: Trainer) -> None:
        """After the model prepared itself, before the first batch."""

    def on_step_end(self, trainer: Trainer, logs: dict[str, float]) -> None:
        """After each batch; `logs` has the losses of its updates."""

    def on_epoch_end(self, trainer: Trainer) -> None:
        """After each epoch."""

    def on_validation_end(self, trainer: Trainer, value: float) -> None:
        """After each validation, with the monitored value."""

    def on_progress(self, what: str, done: int, total: int) -> None:
        """Long work inside a model's hook has come to `done` of `total`."""

    def on_fit_end(self, trainer: Trainer) -> None:
        """After the model finished itself, or when training failed."""

    def close(self) -> None:
        """At the very end of the run, whatever happened."""


class ProgressBar(Callback):
    """Epoch, loss, rate and time left on the terminal; silent where there is none."""

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

    def on_fit_start(self, trainer: Trainer) -> None:
        """Show the bar."""
        self.progress.start()
        self.tasks["train"] = self.progress.add_task("train", total=trainer.fit.plan.total_steps, info="")

    def on_step_end(self, trainer: Trainer, logs: dict[str, float]) -> None:
        """Move the bar and show the losses."""
        rate = trainer.fit.step / max(self.progress.tasks[self.tasks["train"]].elapsed or 0, 1e-9)
        info = " ".join(f"{key} {value:.4g}" for key, value in logs.items()) + f" {rate:.2f} steps/s"
        self.progress.update(self.tasks["train"], completed=trainer.fit.step, info=info)

    def on_progress(self, what: str, done: int, total: int) -> None:
        """A bar of its own for each kind of work."""
        if what not in self.tasks:
            self.progress.start()
            self.tasks[what] = self.progress.add_task(what, total=total, info="")
        self.progress.update(self.tasks[what], completed=done, total=total)

    def close(self) -> None:
        """Take the bars away."""
        self.progress.stop()
