"""Optimizers and learning-rate schedules by name."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

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
SCHEDULERS: dict[str, tuple[type[LRScheduler], str]] = {  # the class, and whether it steps each epoch or each step
    "steplr": (StepLR, "epoch"),
    "multisteplr": (MultiStepLR, "epoch"),
    "exponential": (ExponentialLR, "epoch"),
    "cosine": (CosineAnnealingLR, "epoch"),
    "linear": (LinearLR, "step"),
    "warmup_cosine": (WarmupCosineLR, "step"),
    "onecycle": (OneCycleLR, "step"),
}


def build_optimizer(name: str | type[Optimizer], parameters: Iterable[Any], **options: Any) -> Optimizer:
    """An optimizer by its lower-case name, or of a class that a model brings along.

    ConfigError lists the names, or what its options may be.
    """
    if isinstance(name, str) and name.lower() not in OPTIMIZERS:
        raise ConfigError(f"unknown optimizer '{name}'; valid ones: {', '.join(OPTIMIZERS)}")
    kind = OPTIMIZERS[name.lower()] if isinstance(name, str) else name
    _check_options(kind, options, f"optimizer '{name if isinstance(name, str) else name.__name__}'")
    return kind(parameters, **options)


def build_scheduler(optimizer: Optimizer, config: dict[str, Any] | None) -> tuple[LRScheduler | None, str]:
    """(scheduler, "epoch" or "step") from {"type": name, ...its arguments..., "interval": optional}."""
    if not config:
        return None, "epoch"
    options = dict(config)
    name = str(options.pop("type", "")).lower()
    if name not in SCHEDULERS:
        raise ConfigError(f"unknown scheduler type '{name}'; valid ones: {', '.join(SCHEDULERS)}")
    kind, interval = SCHEDULERS[name]
    interval = options.pop("interval", interval)
    _check_options(kind, options, f"scheduler '{name}'")
    try:
        return kind(optimizer, **options), interval
    except TypeError as error:
        raise ConfigError(f"scheduler '{name}': {error}") from None


def _check_options(kind: type, options: dict[str, Any], owner: str) -> None:
    valid = [p for p in inspect.signature(kind.__init__).parameters if p not in ("self", "params", "optimizer")]
    wrong = [key for key in options if key not in valid]
    if wrong:
        raise ConfigError(f"{owner} has no option '{wrong[0]}'; valid ones: {', '.join(valid)}")
