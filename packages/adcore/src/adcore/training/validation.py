"""Validation loss and early stopping."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from adcore.errors import ConfigError
from adcore.model import AnomalyModel, Batch


@torch.no_grad()
def validation_loss(model: AnomalyModel, batches: Iterable[Batch], step: int, seed: int) -> float:
    """Mean loss over `batches` in evaluation mode.

    Random numbers are drawn from `seed`, the same each time; the state of the fit's own generator is restored.
    """
    was_training = model.training
    model.eval()
    devices = [next(model.parameters()).device] if next(model.parameters()).is_cuda else []
    total, count = 0.0, 0
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        for batch in batches:
            for update in model.training_step(batch, step):
                total, count = total + float(update.loss), count + 1
    model.train(was_training)
    if not count:
        raise ConfigError("this model has no loss to validate; monitor val_image_auroc instead")
    return total / count


class EarlyStopping:
    """Remembers the best monitored value and how many validations have passed without a better one."""

    def __init__(self, monitor: str, patience: int | None, min_delta: float, target: float | None) -> None:
        self.monitor, self.patience, self.min_delta, self.target = monitor, patience, min_delta, target
        self.sign = -1.0 if monitor.endswith("loss") else 1.0  # a loss is better when lower
        self.best: float | None = None
        self.waited = 0

    def update(self, value: float) -> tuple[bool, str | None]:
        """Take a new value: (whether it is the best so far, the reason to stop or None)."""
        better = self.best is None or self.sign * (value - self.best) > self.min_delta
        if better:
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        if self.target is not None and self.sign * (value - self.target) >= 0:
            return better, f"{self.monitor} {value:.6g} reached the target {self.target:g}"
        if self.patience is not None and self.waited >= self.patience:
            return better, f"{self.monitor} did not improve on {self.best:.6g} in {self.waited} validations"
        return better, None

    def state(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return {"best": self.best, "waited": self.waited}

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self.best, self.waited = state["best"], state["waited"]


Validate = Callable[[AnomalyModel], float]  # image AUROC over the validation images
