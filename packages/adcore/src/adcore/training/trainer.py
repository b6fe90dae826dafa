"""The training loop: one for one-pass, gradient and alternating models alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adcore.artifact import load_state
from adcore.errors import ConfigError, TrainingError
from adcore.model import AnomalyModel, Batch, Fit, Optimization, Update
from adcore.training.callbacks import Callback
from adcore.training.checkpoint import load_checkpoint, save_checkpoint
from adcore.training.device import has_mixed_precision
from adcore.training.plan import Plan
from adcore.training.validation import EarlyStopping, Validate, validation_loss


@dataclass
class TrainingSummary:
    """What a fit did."""

    epochs: int
    steps: int
    seconds: float
    stop_reason: str | None = None  # why it stopped early
    losses: dict[str, float] = field(default_factory=dict)  # of the last step
    history: list[dict[str, float]] = field(default_factory=list)  # mean losses of each epoch, and validations


class Trainer:
    """Fits one model. `train_loader` gives Batches, has a length, and may have `set_epoch(epoch, start)` and
    `one_by_one()`, which makes it give batches of one image.

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
        validate: Validate | None = None,
        callbacks: Sequence[Callback] = (),
        checkpoints: Path | None = None,
        identity: dict[str, Any] | None = None,
    ) -> None:
        self.model, self.train_loader, self.callbacks = model, train_loader, list(callbacks)
        self.device = torch.device(device)
        self.plan = plan.model_copy(update={"steps_per_epoch": len(train_loader)})
        self.validate, self.checkpoints, self.identity = validate, checkpoints, identity or {}
        self.optimizations: dict[str, Optimization] = {}
        self.stop_reason: str | None = None
        self.history: list[dict[str, float]] = []
        self.logs: dict[str, float] = {}
        self.sums: dict[str, float] = {}  # of the losses of the epoch's steps
        self.steps_in_epoch = 0
        self.pending: dict[str, int] = {}  # batches whose gradients wait, by optimizer
        self.stopping = self._early_stopping(val_loader is not None)
        self.mixed = plan.precision == "mixed"
        if self.mixed and not has_mixed_precision(self.device):
            raise ConfigError("precision=mixed needs CUDA or a CPU with bfloat16 instructions; use precision=float32")
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.mixed and self.device.type == "cuda")
        self._last_save = time.monotonic()
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

    def run(self, resume: bool = False) -> TrainingSummary:
        """Fit the model, from the last checkpoint on with `resume`; leave it fitted, in evaluation mode, on the device."""
        started = time.perf_counter()
        fit, model = self.fit, self.model
        model.to(self.device).train()
        try:
            model.on_fit_start(fit)
            self.optimizations = model.configure_optimizers(self.plan)
            # float16 on CUDA, bfloat16 on a CPU; models that learn in one pass need the features that prediction sees
            self.autocast = torch.autocast(self.device.type, enabled=self.mixed and bool(self.optimizations))
            if not self.optimizations:
                self.plan = self.fit.plan = self._one_pass()
            if resume and self.checkpoints:
                load_checkpoint(self.checkpoints / "last.safetensors", self, self.identity)
            self._call("on_fit_start", self)
            while fit.epoch < self.plan.epochs and fit.step < self.plan.total_steps and not self.stop_reason:
                self._epoch()
            if self.optimizations:
                self._save("last")
            if self.stopping and self.checkpoints and (best := self.checkpoints / "best.safetensors").is_file():
                from safetensors.torch import load_file

                load_state(model, load_file(best, device=str(self.device)))
            model.eval()
            with torch.no_grad():
                model.on_fit_end(fit)
            model.fitted = True
        finally:
            self._call("on_fit_end", self)
        seconds = time.perf_counter() - started
        return TrainingSummary(fit.epoch, fit.step, seconds, self.stop_reason, dict(self.logs), self.history)

    def _one_pass(self) -> Plan:
        """What becomes of the plan with nothing to optimise: one epoch, for a second would show what has been seen.

        On a CPU the model gets image by image, as frozen networks run there: it need not wait for the rest of a batch.
        """
        plan, changes = self.plan, {"epochs": 1}
        if self.device.type == "cpu" and hasattr(self.train_loader, "one_by_one"):
            self.train_loader.one_by_one()
            counts = {"max_steps": plan.max_steps, "validate_every_steps": plan.validate_every_steps}
            changes |= {key: count * plan.batch_size for key, count in counts.items() if count}
            changes |= {"batch_size": 1, "steps_per_epoch": len(self.train_loader)}
        return plan.model_copy(update=changes)

    def _epoch(self) -> None:
        """One pass, or what is left of it after a resume."""
        fit, model, plan = self.fit, self.model, self.plan
        if hasattr(self.train_loader, "set_epoch"):
            self.train_loader.set_epoch(fit.epoch, self.steps_in_epoch)
        model.train()
        batches = iter(self.train_loader)  # reading begins
        model.warm_up()
        for batch in batches:
            self.logs = self._step(batch.to(self.device))
            fit.step, self.steps_in_epoch = fit.step + 1, self.steps_in_epoch + 1
            for key, value in self.logs.items():
                self.sums[key] = self.sums.get(key, 0.0) + value
            self._call("on_step_end", self, self.logs)
            if plan.validate_every_steps and fit.step % plan.validate_every_steps == 0:
                self._validate()
            if fit.step >= plan.total_steps or self.stop_reason:
                break
            if self.optimizations and time.monotonic() - self._last_save >= plan.checkpoint_seconds:
                self._save("last")
        self._flush()
        fit.epoch += 1
        for optimization in self.optimizations.values():
            if optimization.scheduler and optimization.interval == "epoch":
                optimization.scheduler.step()
        model.on_epoch_end(fit)
        self.history.append({key: value / max(1, self.steps_in_epoch) for key, value in self.sums.items()})
        self.sums, self.steps_in_epoch = {}, 0
        if not plan.validate_every_steps and fit.epoch % plan.validate_every == 0:
            self._validate()
        self._call("on_epoch_end", self)

    def _step(self, batch: Batch) -> dict[str, float]:
        logs: dict[str, float | Tensor] = {}
        updates = iter(self.model.training_step(batch, self.fit.step))
        while True:
            with self.autocast:
                update = next(updates, None)
            if update is None:
                break
            logs["loss" if update.optimizer == "main" else f"{update.optimizer}_loss"] = update.loss.detach()
            logs.update(update.logs)
            logs.update(self._apply(update, batch))
        return {key: float(value) for key, value in logs.items()}

    def _apply(self, update: Update, batch: Batch) -> dict[str, float | Tensor]:
        """Backward, and an optimizer step when enough batches have been accumulated."""
        name, optimizer = update.optimizer, self.optimizations[update.optimizer].optimizer
        if not math.isfinite(loss := float(update.loss.detach())):
            raise TrainingError(self._nan_message(loss, batch))
        if not self.pending.get(name):
            optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(update.loss / self.plan.accumulate).backward()
        self.pending[name] = self.pending.get(name, 0) + 1
        return self._optimizer_step(name) if self.pending[name] >= self.plan.accumulate else {}

    def _optimizer_step(self, name: str) -> dict[str, float | Tensor]:
        optimization, logs = self.optimizations[name], {}
        optimizer = optimization.optimizer
        if optimization.clip_norm or self.plan.monitor_gradients:
            self.scaler.unscale_(optimizer)
            parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            if self.plan.monitor_gradients:
                logs["grad/nan_count"] = sum(int((~p.grad.isfinite()).sum()) for p in parameters)
            limit = optimization.clip_norm or math.inf
            norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
            if self.plan.monitor_gradients:
                logs["grad/total_norm"] = norm
        self.scaler.step(optimizer)
        self.scaler.update()
        self.pending[name] = 0
        if optimization.scheduler and optimization.interval == "step":
            optimization.scheduler.step()
        return logs

    def _flush(self) -> None:
        """Use the gradients of an accumulation that the end of the epoch cut short."""
        for name, waiting in self.pending.items():
            if waiting:
                self._optimizer_step(name)

    def _validate(self) -> None:
        if self.stopping is None:
            return
        model, fit = self.model, self.fit
        with torch.no_grad():
            model.on_validation_start(fit)
        if self.plan.monitor == "val_loss":
            value = validation_loss(model, fit.val_batches(), fit.step, self.plan.seed)
        else:
            model.eval()
            model.fitted = True  # for this question only
            try:
                value = self.validate(model)
            finally:
                model.fitted = False
                model.train()
        self.logs[self.plan.monitor] = value
        self.history.append({"step": fit.step, self.plan.monitor: value})
        better, self.stop_reason = self.stopping.update(value)
        if better:
            self._save("best")
        self._call("on_validation_end", self, value)

    def _early_stopping(self, has_validation: bool) -> EarlyStopping | None:
        plan = self.plan
        if plan.monitor is None:
            return None
        if not has_validation or (plan.monitor == "val_image_auroc" and self.validate is None):
            raise ConfigError(
                f"monitor={plan.monitor} needs validation images; use --val-split from_train or from_test"
            )
        return EarlyStopping(plan.monitor, plan.patience, plan.min_delta, plan.target)

    def _save(self, name: str) -> None:
        """A checkpoint; weights that are not finite never replace a good one. `best` holds the model alone."""
        self._last_save = time.monotonic()
        if self.checkpoints is None or any(self.pending.values()):
            return
        if not all(p.isfinite().all() for p in self.model.parameters()):
            return
        if name == "best":
            from safetensors.torch import save_file

            from adcore.files import atomic_path

            state = {key: value.detach().cpu().contiguous().clone() for key, value in self.model.state_dict().items()}
            with atomic_path(self.checkpoints / "best.safetensors") as temporary:
                save_file(state, temporary)
        else:
            save_checkpoint(self.checkpoints / "last.safetensors", self, self.identity)

    def progress_state(self) -> dict[str, Any]:
        """Where the fit stands, as plain data for a checkpoint."""
        return {
            "epoch": self.fit.epoch,
            "step": self.fit.step,
            "steps_in_epoch": self.steps_in_epoch,
            "sums": self.sums,
            "history": self.history,
            "logs": self.logs,
            "stop_reason": self.stop_reason,
            "stopping": self.stopping.state() if self.stopping else None,
            "scaler": self.scaler.state_dict(),
        }

    def load_progress_state(self, state: dict[str, Any]) -> None:
        """The inverse of `progress_state`."""
        self.fit.epoch, self.fit.step, self.steps_in_epoch = state["epoch"], state["step"], state["steps_in_epoch"]
        self.sums, self.history, self.logs = state["sums"], state["history"], state["logs"]
        self.stop_reason = state["stop_reason"]
        if self.stopping and state["stopping"]:
            self.stopping.load_state(state["stopping"])
        self.scaler.load_state_dict(state["scaler"])

    def _nan_message(self, loss: float, batch: Batch) -> str:
        names = ", ".join(batch.paths[:4]) + (", ..." if len(batch.paths) > 4 else "")
        last = self.checkpoints / "last.safetensors" if self.checkpoints else None
        kept = f"; the last good checkpoint is {last}" if last and last.is_file() else ""
        return f"the loss became {loss} at step {self.fit.step} on {names}; lower learning_rate or set clip_norm{kept}"

    def _on_device(self, batches: Iterable[Batch]) -> Iterable[Batch]:
        return (batch.to(self.device) for batch in batches)

    def _log(self, key: str, value: float) -> None:
        self.logs[key] = float(value)

    def _progress(self, what: str, done: int, total: int) -> None:
        self._call("on_progress", what, done, total)

    def _call(self, method: str, *arguments: object) -> None:
        for callback in self.callbacks:
            getattr(callback, method)(*arguments)
