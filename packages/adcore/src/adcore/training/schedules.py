"""Optimizers and learning-rate schedulers by name, with checked options."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from torch.optim import SGD, Adam, AdamW, NAdam, Optimizer, RAdam, RMSprop
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    StepLR,
)

from adcore.config import CheckedModel, describe_errors
from adcore.errors import ConfigError
from adcore.training.warmup import WarmupCosineLR

OPTIMIZERS: dict[str, type[Optimizer]] = {
    "adam": Adam,
    "adamw": AdamW,
    "nadam": NAdam,
    "radam": RAdam,
    "rmsprop": RMSprop,
    "sgd": SGD,
}
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class _StepOptions(CheckedModel):
    step_size: Count
    gamma: Positive = 0.1


class _MultiStepOptions(CheckedModel):
    milestones: list[Count]
    gamma: Positive = 0.1


class _ExponentialOptions(CheckedModel):
    gamma: Positive


class _CosineOptions(CheckedModel):
    T_max: Count
    eta_min: float = Field(0.0, ge=0)


class _LinearOptions(CheckedModel):
    start_factor: Annotated[float, Field(gt=0, le=1)] = 1 / 3
    end_factor: Share = 1.0
    total_iters: Count = 5


class _WarmupCosineOptions(CheckedModel):
    total_steps: Count
    warmup_steps: int = Field(0, ge=0)
    final_ratio: Share = 0.0


class _OneCycleOptions(CheckedModel):
    max_lr: Positive | list[Positive]
    total_steps: Count | None = None
    epochs: Count | None = None
    steps_per_epoch: Count | None = None
    pct_start: Share = 0.3
    anneal_strategy: Literal["cos", "linear"] = "cos"
    cycle_momentum: bool = True
    base_momentum: Share | list[Share] = 0.85
    max_momentum: Share | list[Share] = 0.95
    div_factor: Positive = 25.0
    final_div_factor: Positive = 1e4
    three_phase: bool = False


SCHEDULERS: dict[str, tuple[type[LRScheduler], type[CheckedModel], Literal["epoch", "step"]]] = {
    # the class, its options, and whether it steps once an epoch or once an optimizer step
    "steplr": (StepLR, _StepOptions, "epoch"),
    "multisteplr": (MultiStepLR, _MultiStepOptions, "epoch"),
    "exponential": (ExponentialLR, _ExponentialOptions, "epoch"),
    "cosine": (CosineAnnealingLR, _CosineOptions, "epoch"),
    "linear": (LinearLR, _LinearOptions, "step"),
    "warmup_cosine": (WarmupCosineLR, _WarmupCosineOptions, "step"),
    "onecycle": (OneCycleLR, _OneCycleOptions, "step"),
}


def build_optimizer(name: str | type[Optimizer], parameters: Iterable[Any], **options: Any) -> Optimizer:
    """An optimizer by its name in any case, or of a class that a model brings along.

    ConfigError lists the names, or what its options may be.
    """
    if isinstance(name, str) and name.lower() not in OPTIMIZERS:
        raise ConfigError(f"unknown optimizer '{name}'; valid ones: {', '.join(OPTIMIZERS)}")
    kind = OPTIMIZERS[name.lower()] if isinstance(name, str) else name
    valid = [p for p in inspect.signature(kind.__init__).parameters if p not in ("self", "params")]
    _check_keys(options, valid, f"optimizer '{name if isinstance(name, str) else name.__name__}'")
    return kind(parameters, **options)


def build_scheduler(optimizer: Optimizer, config: dict[str, Any] | None) -> tuple[LRScheduler | None, str]:
    """(scheduler, "epoch" or "step") from {"type": name, ...its options..., "interval": optional}.

    Names may be in any case. ConfigError names the scheduler with the option and the value that are wrong.
    """
    if not config:
        return None, "epoch"
    options = dict(config)
    name = str(options.pop("type", "")).lower()
    if name not in SCHEDULERS:
        raise ConfigError(f"unknown scheduler type '{name}'; valid ones: {', '.join(SCHEDULERS)}")
    kind, schema, interval = SCHEDULERS[name]
    interval = options.pop("interval", interval)
    if interval not in ("epoch", "step"):
        raise ConfigError(f"scheduler '{name}': interval must be epoch or step (got {interval!r})")
    _check_keys(options, [*schema.model_fields, "interval"], f"scheduler '{name}'")
    try:
        checked = schema(**options)
        return kind(optimizer, **checked.model_dump(exclude_unset=True)), interval
    except ValidationError as error:
        raise ConfigError(f"scheduler '{name}': {describe_errors(error)}") from None
    except (TypeError, ValueError) as error:  # options that do not go together
        raise ConfigError(f"scheduler '{name}': {error} (got {options})") from None


def _check_keys(options: dict[str, Any], valid: list[str], owner: str) -> None:
    wrong = [key for key in options if key not in valid]
    if wrong:
        raise ConfigError(f"{owner} has no option '{wrong[0]}'; valid ones: {', '.join(valid)}")
