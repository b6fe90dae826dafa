"""The training loop: one for one-pass, gradient and alternating models alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from adcore.batching import one_at_a_time
from adcore.errors import TrainingError
from adcore.model import AnomalyModel, Batch, Fit, Optimization
from adcore.training.callbacks import Callback
from adcore.training.checkpoint import load_checkpoint, load_weights, save_checkpoint, save_weights
from adcore.training.device import half_precision
from adcore.training.networks import check_plan, fast_networks, with_layout
from adcore.training.plan import Plan
from adcore.training.processes import Processes
from adcore.training.step_losses import StepLosses
from adcore.training.stepping import Stepper
from adcore.training.validation import EarlyStopping, Validate, validation_loss
from adcore.training.whole_batch import whole_batch


@dataclass
class TrainingSummary:
    """What a fit did. Values that are not finite are None."""

    epochs: int
    steps: int
    seconds: float
    stop_reason: str | None = None  # why it stopped early
    losses: dict[str, float | None] = field(default_factory=dict)  # of the last step
    history: list[dict[str, float | None]] = field(default_factory=list)  # mean losses of each epoch, and validations
    logged: list[dict[str, float | None]] = field(default_factory=list)  # by the model's hooks, each with its step
    data_seconds: float = 0.0  # that steps waited for their images


class Trainer:
    """Fits one model. `train_loader` gives Batches, has a length, and may have `set_epoch(epoch, start)` and
    `one_by_one()`, which makes it give batches of one image, or with tiles of one tile, of which it then has `tiles`. With
    several `processes` it also has what `Loader` has for them.

    `val_loss` is measured on `loss_loader`, or where there is none on `val_loader`.
    With `checkpoints`, a folder, the fit can be resumed after a kill: `identity` says what run the files belong to.
    """

    def __init__(
        self,
        model: AnomalyModel,
        plan: Plan,
        train_loader: Iterable[Batch],
        num_images: int,
        device: torch.device | str = "cpu",
        fixed_loader: Callable[[], Iterable[Batch]] | None = None,
        val_loader: Callable[[], Iterable[Batch]] | None = None,
        loss_loader: Callable[[], Iterable[Batch]] | None = None,
        validate: Validate | None = None,
        callbacks: Sequence[Callback] = (),
        checkpoints: Path | None = None,
        identity: dict[str, Any] | None = None,
        processes: Processes = Processes(),  # noqa: B008 (frozen)
    ) -> None:
        self.processes = processes
        self.model, self.train_loader, self.callbacks = model, train_loader, list(callbacks)
        self.device = torch.device(device)
        self.plan = plan.model_copy(update={"steps_per_epoch": len(train_loader)})
        if model.one_pass:
            self.plan = self._one_pass_plan(num_images)
        else:
            if processes.several:
                train_loader.divide(processes.part_of_batch)
            self.plan = self.plan.watching(val_loader is not None, validate is not None)
        self.validate, self.identity = validate, identity or {}
        self.loss_loader = loss_loader or val_loader
        self.last = checkpoints / "last.safetensors" if checkpoints else None  # all that a resume needs
        self.best = checkpoints / "best.safetensors" if checkpoints else None  # the model of the best validation
        self.stop_reason: str | None = None
        self.history: list[dict[str, float]] = []
        self.logged: list[dict[str, float]] = []
        self.logs: dict[str, float] = {}
        self.sums: dict[str, float] = {}  # of the losses of the epoch's steps
        self.steps_in_epoch = 0
        watched, stops = self.plan.monitor, (self.plan.patience, self.plan.min_delta, self.plan.target)
        self.stopping = EarlyStopping(watched, *stops) if watched else None
        check_plan(self.plan, self.device)
        mixed = self.plan.precision == "mixed"  # never in one pass: it needs the features that prediction sees
        self.autocast = torch.autocast(self.device.type, half_precision(self.device) if mixed else None, enabled=mixed)
        self.stepper = Stepper({}, self.plan, self.device)
        each_step = any(callback.each_step for callback in self.callbacks)
        self.losses = StepLosses(self.device, processes, each_step, self._advice)
        self._read_to = 0  # the step up to which they are read
        self._began, self.data_seconds = time.perf_counter(), 0.0  # the latter: that steps waited for their images
        self._last_save = time.monotonic()
        fixed = fixed_loader or (lambda: train_loader)
        self.fit = Fit(
            plan=self.plan,
            device=self.device,
            num_images=getattr(train_loader, "tiles", 0) or num_images,
            train_batches=lambda: self._on_device(fixed()),
            val_batches=(lambda: self._on_device(val_loader())) if val_loader else None,
            log=self._log,
            progress=self._progress,
        )

    @property
    def optimizations(self) -> dict[str, Optimization]:
        """The optimizers by name; empty before the model has configured them, and for one-pass models."""
        return self.stepper.optimizations

    @property
    def data_share(self) -> float:
        """The part of the fit's time so far that steps waited for their images, 0 to 1."""
        return self.data_seconds / max(time.perf_counter() - self._began, 1e-9)

    def run(self, resume: bool = False) -> TrainingSummary:
        """Fit the model, from the last checkpoint on with `resume`; leave it fitted, in evaluation mode, on the device.

        Of several processes the first one alone leaves it so.
        """
        self._began = time.perf_counter()
        fit, model = self.fit, self.model
        model.to(self.device).train()
        try:
            model.on_fit_start(fit)
            if not model.one_pass:
                self.stepper = Stepper(self._configured(), self.plan, self.device, self.processes)
            if resume and self.last:
                load_checkpoint(self.last, self, self.identity)
                self._read_to = fit.step
            self.processes.same_state(model)
            self._call("on_fit_start", self)
            with fast_networks(model, fit):
                while fit.epoch < self.plan.epochs and fit.step < self.plan.total_steps and not self.stop_reason:
                    self._epoch()
            self._save_last()
            if self.processes.several and model.one_pass:
                with torch.no_grad():
                    model.merge(self.processes)
            if self.processes.first:
                self._finish()
        finally:
            self._call("on_fit_end", self)
        seconds = time.perf_counter() - self._began
        losses, history, logged = _finite(self.logs), list(map(_finite, self.history)), list(map(_finite, self.logged))
        stopped, waited = self.stop_reason, self.data_seconds
        return TrainingSummary(fit.epoch, fit.step, seconds, stopped, losses, history, logged, waited)

    def _finish(self) -> None:
        """What follows the last batch: the model of the best validation, and what prediction needs."""
        model = self.model
        if self.stopping and self.best and self.best.is_file():
            load_weights(self.best, model, self.device)
        model.eval()
        with torch.no_grad():
            model.on_fit_end(self.fit)
        model.fitted = True

    def _one_pass_plan(self, num_images: int) -> Plan:
        """One-pass models train for one epoch, on a CPU with batches of one image.

        max_steps still counts the batches that the user asked for. Each of several processes gets a block of the images.
        """
        plan, changes = self.plan.in_one_pass(), {}
        loader = self.train_loader
        if hasattr(loader, "one_by_one") and (one_at_a_time(self.device) or getattr(loader, "tiled", False)):
            loader.one_by_one()
            changes = {"batch_size": 1, "steps_per_epoch": len(self.train_loader)}
            changes |= {"max_steps": plan.max_steps * plan.batch_size} if plan.max_steps else {}
        if self.processes.several:
            seen = min(num_images, plan.max_steps * plan.batch_size) if plan.max_steps else num_images
            self.train_loader.keep_block(self.processes.part(seen))
            changes |= {"steps_per_epoch": len(self.train_loader), "max_steps": None}
        return plan.model_copy(update=changes)

    def _configured(self) -> dict[str, Optimization]:
        optimizations = self.model.configure_optimizers(self.plan)
        if not optimizations:
            name = type(self.model).__name__
            raise TrainingError(f"{name}.configure_optimizers gives no optimizer; a one-pass model does not define it")
        return optimizations

    def _epoch(self) -> None:
        """One epoch, or the rest of it after a resume."""
        fit, model, plan = self.fit, self.model, self.plan
        if hasattr(self.train_loader, "set_epoch"):
            self.train_loader.set_epoch(fit.epoch, self.steps_in_epoch)
        model.train()
        batches = iter(self.train_loader)  # reading begins
        model.warm_up()
        for batch in self._timed(batches):
            self._step(with_layout(batch.to(self.device), self.plan))
            fit.step, self.steps_in_epoch = fit.step + 1, self.steps_in_epoch + 1
            if self.losses.due(fit.step):
                self._read_losses()
            if plan.validate_every_steps and fit.step % plan.validate_every_steps == 0:
                self._validate()
            if fit.step >= plan.total_steps or self.stop_reason:
                break
            if self._read_to == fit.step:  # a checkpoint has the sums of all losses
                self._save_last_when_due()
        self._read_losses()
        self.stepper.flush()
        self.stepper.end_epoch()
        fit.epoch += 1
        model.on_epoch_end(fit)
        self.history.append({key: value / max(1, self.steps_in_epoch) for key, value in self.sums.items()})
        self.sums, self.steps_in_epoch = {}, 0
        if not plan.validate_every_steps and fit.epoch % plan.validate_every == 0:
            self._validate()
        self._call("on_epoch_end", self)
        self._save_last_when_due()

    def _timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches; the seconds that each is waited for are counted."""
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self.data_seconds += time.perf_counter() - began
            if batch is None:
                return
            yield batch

    def _step(self, batch: Batch) -> None:
        """Train on one batch. No value is read here on a GPU, which would have to finish first."""
        processes, share, step = self.processes, None, self.fit.step
        if processes.several:
            if not self.model.one_pass:
                size = self.plan.batch_size
                share = processes.share(min(size, self.fit.num_images - self.steps_in_epoch * size))
            batch = replace(batch, share=share, processes=processes)
        weight = processes.weight(share)
        updates = iter(self.model.training_step(batch, step))
        while True:
            with self.autocast, whole_batch(processes, share):
                update = next(updates, None)
            if update is None:
                return
            self.stepper.backward(update, weight)
            name = "loss" if update.optimizer == "main" else f"{update.optimizer}_loss"
            self.losses.add_loss(step, name, {name: update.loss} | update.logs, weight, batch.paths)
            self.losses.add(step, self.stepper.step_when_due(update.optimizer))

    def _read_losses(self) -> None:
        """Read what the steps since the last time have logged, and tell the callbacks of the last of them."""
        if self._read_to == self.fit.step:
            return
        self._read_to, self.logs = self.fit.step, {}
        for logs in self.losses.read():
            self.logs = logs
            for key, value in logs.items():
                self.sums[key] = self.sums.get(key, 0.0) + value
        self._call("on_step_end", self, self.logs)

    def _validate(self) -> None:
        if self.stopping is None:
            return
        self._read_losses()
        model, fit, monitor = self.model, self.fit, self.plan.monitor
        with torch.no_grad():
            model.on_validation_start(fit)
        value = self.processes.same(self._monitored() if self.processes.first else None)
        if not math.isfinite(value):
            raise TrainingError(f"the {monitor} became {value} at step {fit.step}{self._advice()}")
        self.logs[monitor] = value
        self.history.append({"step": fit.step, monitor: value})
        better, self.stop_reason = self.stopping.update(value)
        if better and self.best and self.processes.first:
            # the model alone: gradients that wait for an optimizer step do not matter
            save_weights(self.best, model)
        self._call("on_validation_end", self, value)

    def _monitored(self) -> float:
        """The value that validation looks at."""
        model = self.model
        if self.plan.monitor == "val_loss":
            return validation_loss(model, self._on_device(self.loss_loader()), self.fit.step, self.plan.seed)
        model.eval()
        model.fitted = True  # for this question only
        try:
            return self.validate(model)
        finally:
            model.fitted = False
            model.train()

    def _save_last_when_due(self) -> None:
        if time.monotonic() - self._last_save >= self.plan.checkpoint_seconds:
            self._save_last()

    def _save_last(self) -> None:
        """A checkpoint, between two optimizer steps; weights that are not finite never replace a good one."""
        if not (self.last and self.optimizations and self.processes.first) or self.stepper.accumulating:
            return
        if all(p.isfinite().all() for p in self.model.parameters()):
            save_checkpoint(self.last, self, self.identity)
            self._last_save = time.monotonic()

    def _advice(self) -> str:
        """What may help where a loss or metric is not finite."""
        kept = f"; the last good checkpoint is {self.last}" if self.last and self.last.is_file() else ""
        return f"; lower learning_rate or set clip_norm{kept}"

    def _on_device(self, batches: Iterable[Batch]) -> Iterable[Batch]:
        return (batch.to(self.device) for batch in batches)

    def _log(self, key: str, value: float) -> None:
        self.logged.append({"step": self.fit.step, key: float(value)})
        self._call("on_log", self, key, float(value))

    def _progress(self, what: str, done: int, total: int) -> None:
        self._call("on_progress", what, done, total)

    def _call(self, method: str, *arguments: object) -> None:
        for callback in self.callbacks:
            getattr(callback, method)(*arguments)


def _finite(values: dict[str, float]) -> dict[str, float | None]:
    """JSON has no NaN."""
    return {key: value if math.isfinite(value) else None for key, value in values.items()}
