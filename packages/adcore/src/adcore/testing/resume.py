"""Stopping a fit where a kill would, to test that a resumed one ends alike."""

from __future__ import annotations

from collections.abc import Iterator

from adcore.model import Batch
from adcore.training.callbacks import Callback
from adcore.training.trainer import Trainer


class ResumableBatches(list[Batch]):
    """Batches that a fit can begin at any of, as with the loader's `set_epoch`."""

    start = 0

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Begin the next pass at batch number `start`."""
        self.start = start

    def __iter__(self) -> Iterator[Batch]:
        return iter(self[i] for i in range(self.start, len(self)))


class StopAt(Callback):
    """Keeps the learning rates of each step, and stops the fit after a step with KeyboardInterrupt."""

    each_step = True

    def __init__(self, step: int | None = None) -> None:
        self.step = step
        self.rates: dict[int, tuple[float, ...]] = {}  # by step: of every parameter group of every optimizer

    def on_step_end(self, trainer: Trainer, logs: dict[str, float]) -> None:
        """Keep the rates; stop at the step."""
        groups = [group for o in trainer.optimizations.values() for group in o.optimizer.param_groups]
        self.rates[trainer.fit.step] = tuple(group["lr"] for group in groups)
        if trainer.fit.step == self.step:
            raise KeyboardInterrupt
