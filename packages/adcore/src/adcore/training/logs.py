"""Written logs of a fit: a text file that a person can follow, and TensorBoard."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adcore.errors import ConfigError
from adcore.evaluation.report import in_words
from adcore.training.callbacks import Callback

if TYPE_CHECKING:
    from adcore.training.trainer import Trainer

EVERY = 10.0  # seconds between two lines within an epoch


class DetailLog(Callback):
    """`training_detail.log`: what is fitted, `lines`, notes, losses in and after each epoch, validations, the end, metrics."""

    def __init__(self, path: Path, append: bool = False, notes: Sequence[str] = (), lines: Sequence[str] = ()) -> None:
        self.path, self.append, self.notes, self.lines = path, append, notes, lines
        self._file, self._last = None, 0.0

    def on_fit_start(self, trainer: Trainer) -> None:
        """Write what is fitted."""
        fit, parameters = trainer.fit, sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
        name = trainer.model.card.name if trainer.model.card else type(trainer.model).__name__
        self._write(
            f"{name}: {fit.num_images} images, {parameters:,} trainable parameters, {fit.plan.total_steps} steps"
        )
        for line in (*self.lines, *(f"note: {note}" for note in self.notes)):
            self._write(line)
        if fit.step:
            self._write(f"resumed at epoch {fit.epoch}, step {fit.step}")

    def on_step_end(self, trainer: Trainer, logs: dict[str, float]) -> None:
        """A line now and then."""
        if time.monotonic() - self._last >= EVERY:
            self._last = time.monotonic()
            self._write(f"epoch {trainer.fit.epoch} step {trainer.fit.step} {_words(logs)}")

    def on_epoch_end(self, trainer: Trainer) -> None:
        """The mean losses of the epoch."""
        means = next((entry for entry in reversed(trainer.history) if "step" not in entry), {})
        waited = f"{trainer.data_share:.0%} of the time waiting for images"
        self._write(f"epoch {trainer.fit.epoch} done, step {trainer.fit.step} {_words(means)} ({waited})")

    def on_validation_end(self, trainer: Trainer, value: float) -> None:
        """The monitored value."""
        self._write(f"step {trainer.fit.step} {trainer.plan.monitor} {value:.6g}")

    def on_log(self, trainer: Trainer, key: str, value: float) -> None:
        """A value that a hook of the model logged."""
        self._write(f"step {trainer.fit.step} {_words({key: value})}")

    def on_fit_end(self, trainer: Trainer) -> None:
        """Why it ended."""
        if self._file:
            self._write(f"end at step {trainer.fit.step}: {trainer.stop_reason or 'all steps done or stopped'}")

    def on_measured(self, part: str, values: Mapping[str, Any]) -> None:
        """The metrics in words."""
        self._write(f"{part}: {in_words(values)}")

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()

    def _write(self, line: str) -> None:
        if self._file is None:  # a hook may log before `on_fit_start`
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "a" if self.append else "w", encoding="utf-8")  # noqa: SIM115 (closed in close)
        print(time.strftime("%Y-%m-%d %H:%M:%S"), line, file=self._file, flush=True)


class TensorBoardLogs(Callback):
    """Scalars of every step, and validations, for TensorBoard; ConfigError where it is not installed."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ConfigError('TensorBoard is not installed: pip install "adcore[tensorboard]"') from None
        self._make = lambda: SummaryWriter(str(folder))  # on the first value
        self._writer, self._step = None, 0

    def on_step_end(self, trainer: Trainer, logs: dict[str, float]) -> None:
        """Losses and learning rates."""
        self._step = trainer.fit.step
        for key, value in logs.items():
            self._add(f"train/{key}", value, trainer.fit.step)
        for name, optimization in trainer.optimizations.items():
            self._add(f"lr/{name}", optimization.optimizer.param_groups[0]["lr"], trainer.fit.step)

    def on_validation_end(self, trainer: Trainer, value: float) -> None:
        """The monitored value."""
        self._add(f"val/{trainer.plan.monitor}", value, trainer.fit.step)

    def on_log(self, trainer: Trainer, key: str, value: float) -> None:
        """A value that a hook of the model logged."""
        self._add(f"log/{key}", value, trainer.fit.step)

    def on_measured(self, part: str, values: Mapping[str, Any]) -> None:
        """Each metric, `target/domain_B/image_auroc` for example, at the last step."""
        for key, value in values.items():
            if isinstance(value, int | float):
                self._add(f"{part.replace(' ', '/', 1)}/{key}", value, self._step)

    def close(self) -> None:
        """Write what is left."""
        if self._writer:
            self._writer.close()

    def _add(self, key: str, value: float, step: int) -> None:
        self._writer = self._writer or self._make()
        self._writer.add_scalar(key, value, step)


def _words(logs: dict[str, float]) -> str:
    return " ".join(f"{key} {value:.6g}" for key, value in logs.items())
