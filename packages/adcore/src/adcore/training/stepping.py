"""Backward passes and optimizer steps: accumulation, loss scaling, gradient clipping, schedulers."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor

from adcore.errors import TrainingError
from adcore.model import Optimization, Update
from adcore.training.device import half_precision
from adcore.training.plan import Plan
from adcore.training.processes import Processes


class Stepper:
    """Steps the optimizers of a fit, each after `plan.accumulate` backward passes of its own."""

    def __init__(
        self,
        optimizations: dict[str, Optimization],
        plan: Plan,
        device: torch.device,
        processes: Processes = Processes(),  # noqa: B008 (frozen)
    ) -> None:
        self.optimizations, self.plan, self.processes = optimizations, plan, processes
        scaled = plan.precision == "mixed" and half_precision(device) == torch.float16  # which has few small numbers
        self.scaler = torch.amp.GradScaler(device.type, enabled=scaled)
        self.pending = dict.fromkeys(optimizations, 0)  # backward passes since the last optimizer step
        self.scheduled = dict.fromkeys(optimizations, 0)  # scheduler steps done

    @property
    def accumulating(self) -> bool:
        """Whether gradients wait for an optimizer step; a checkpoint does not hold them."""
        return any(self.pending.values())

    def backward(self, update: Update, weight: float = 1.0) -> None:
        """Add the gradients of `update` to those that wait; `weight`: the part of this process in the whole batch."""
        if not self.pending[update.optimizer]:
            self.optimizations[update.optimizer].optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(update.loss / (self.plan.accumulate / weight)).backward()
        self.pending[update.optimizer] += 1

    def step_when_due(self, name: str) -> dict[str, float | Tensor]:
        """Step the optimizer `name` once enough backward passes have been accumulated; what is to be logged."""
        return self._step(name) if self.pending[name] >= self.plan.accumulate else {}

    def flush(self) -> None:
        """Step every optimizer whose accumulation the end of an epoch cut short."""
        for name, waiting in self.pending.items():
            if waiting:
                self._step(name)

    def end_epoch(self) -> None:
        """Step the schedulers that step once an epoch."""
        for name, optimization in self.optimizations.items():
            if optimization.interval == "epoch":
                self._schedule(name)

    def state(self) -> dict[str, Any]:
        """Plain data for a checkpoint: the schedulers' positions and the loss scale."""
        return {"scheduled": self.scheduled, "scaler": self.scaler.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of `state`, for schedulers that are new: they are stepped to where they stood.

        The optimizers' own states, with the learning rates, must be loaded afterwards.
        """
        if state["scaler"]:  # {} of a fit whose losses were not scaled
            self.scaler.load_state_dict(state["scaler"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of scheduler steps without optimizer steps
            for name, count in state["scheduled"].items():
                for _ in range(count):
                    self._schedule(name)

    def _step(self, name: str) -> dict[str, float | Tensor]:
        optimization, logs = self.optimizations[name], {}
        optimizer = optimization.optimizer
        self.processes.add_gradients(p for group in optimizer.param_groups for p in group["params"])
        if optimization.clip_norm or self.plan.monitor_gradients:
            self.scaler.unscale_(optimizer)
            parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            if self.plan.monitor_gradients:
                logs["grad/nan_count"] = sum((~p.grad.isfinite()).sum() for p in parameters)
            norm = torch.nn.utils.clip_grad_norm_(parameters, optimization.clip_norm or math.inf)
            if self.plan.monitor_gradients:
                logs["grad/total_norm"] = norm
        self.scaler.step(optimizer)
        self.scaler.update()
        self.pending[name] = 0
        if optimization.interval == "step":
            self._schedule(name)
        return logs

    def _schedule(self, name: str) -> None:
        scheduler = self.optimizations[name].scheduler
        if scheduler is None:
            return
        try:
            scheduler.step()
        except ValueError as error:  # OneCycleLR ends with its total_steps
            kind = type(scheduler).__name__
            raise TrainingError(f"the scheduler {kind} of optimizer '{name}' cannot go on: {error}") from None
        self.scheduled[name] += 1
