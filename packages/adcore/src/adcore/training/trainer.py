"""The training loop: one for one-pass, gradient and alternating models alike."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from adcore.errors import TrainingError
from adcore.model import AnomalyModel, Batch, Fit, Optimization, Update
from adcore.training.callbacks import Callback
from adcore.training.plan import Plan


@dataclass
class FitSummary:
    """What a fit did."""

    epochs: int
    steps: int
    seconds: float
    losses: dict[str, float] = field(default_factory=dict)  # of the last step
    history: list[dict[str, float]] = field(default_factory=list)  # mean losses of each epoch


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def pick_device(name: str) -> torch.device:
    """The device called `name`; "auto" is CUDA where there is one. A GPU that was asked for and is absent is an error."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise TrainingError(f"device '{name}' was asked for, but torch sees no GPU; use --device cpu")
    return device


class Trainer:
    """Fits one model. `train_loader` gives Batches, has a length, and may have `set_epoch(epoch)`."""

    def __init__(
        self,
        model: AnomalyModel,
        plan: Plan,
        train_loader: Iterable[Batch],
        num_images: int,
        device: torch.device | str = "cpu",
        fixed_loader: Callable[[], Iterable[Batch]] | None = None,
        val_loader: Callable[[], Iterable[Batch]] | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.model, self.train_loader, self.callbacks = model, train_loader, list(callbacks)
        self.device = torch.device(device)
        self.plan = plan.model_copy(update={"steps_per_epoch": len(train_loader)})
        self.optimizations: dict[str, Optimization] = {}
        self.stop_reason: str | None = None
        self.history: list[dict[str, float]] = []
        self.logs: dict[str, float] = {}
        fixed = fixed_loader or (lambda: train_loader)
        self.fit = Fit(
            plan=self.plan,
            device=self.device,
            num_images=num_images,
            train_batches=lambda: self._on_device(fixed()),
            val_batches=(lambda: self._on_device(val_loader())) if val_loader else None,
            log=self._log,
            progress=self._progress,
        )

    def run(self) -> FitSummary:
        """Fit the model and leave it fitted, in evaluation mode, on the device."""
        started = time.perf_counter()
        fit, model = self.fit, self.model
        model.to(self.device).train()
        try:
            model.on_fit_start(fit)
            self.optimizations = model.configure_optimizers(self.plan)
            self._call("on_fit_start", self)
            while fit.epoch < self.plan.epochs and not self.stop_reason:
                self._epoch()
            model.eval()
            with torch.no_grad():
                model.on_fit_end(fit)
            model.fitted = True
        finally:
            self._call("on_fit_end", self)
        return FitSummary(fit.epoch, fit.step, time.perf_counter() - started, dict(self.logs), self.history)

    def _epoch(self) -> None:
        fit, model = self.fit, self.model
        if hasattr(self.train_loader, "set_epoch"):
            self.train_loader.set_epoch(fit.epoch)
        sums: dict[str, float] = {}
        steps = 0
        model.train()
        for batch in self.train_loader:
            self.logs = self._step(batch.to(self.device))
            fit.step, steps = fit.step + 1, steps + 1
            for key, value in self.logs.items():
                sums[key] = sums.get(key, 0.0) + value
            self._call("on_step_end", self, self.logs)
            if fit.step >= self.plan.total_steps:
                break
            if self.stop_reason:
                return
        fit.epoch += 1
        for optimization in self.optimizations.values():
            if optimization.scheduler and optimization.interval == "epoch":
                optimization.scheduler.step()
        model.on_epoch_end(fit)
        self.history.append({key: value / steps for key, value in sums.items()})
        self._call("on_epoch_end", self)

    def _step(self, batch: Batch) -> dict[str, float]:
        logs: dict[str, float | Tensor] = {}
        for update in self.model.training_step(batch, self.fit.step):
            self._apply(update, batch)
            logs["loss" if update.optimizer == "main" else f"{update.optimizer}_loss"] = update.loss.detach()
            logs.update(update.logs)
        return {key: float(value) for key, value in logs.items()}

    def _apply(self, update: Update, batch: Batch) -> None:
        optimization = self.optimizations[update.optimizer]
        optimizer = optimization.optimizer
        if not math.isfinite(float(update.loss.detach())):
            names = ", ".join(batch.paths[:4])
            raise TrainingError(
                f"the loss became {float(update.loss)} at step {self.fit.step} on {names}; lower the rate"
            )
        optimizer.zero_grad(set_to_none=True)
        update.loss.backward()
        if optimization.clip_norm:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, optimization.clip_norm)
        optimizer.step()
        if optimization.scheduler and optimization.interval == "step":
            optimization.scheduler.step()

    def _on_device(self, batches: Iterable[Batch]) -> Iterable[Batch]:
        return (batch.to(self.device) for batch in batches)

    def _log(self, key: str, value: float) -> None:
        self.logs[key] = float(value)

    def _progress(self, what: str, done: int, total: int) -> None:
        self._call("on_progress", what, done, total)

    def _call(self, method: str, *arguments: object) -> None:
        for callback in self.callbacks:
            getattr(callback, method)(*arguments)
