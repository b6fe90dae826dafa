"""Other names of settings: what people bring from other frameworks, and what it is called here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from adcore.cards import ModelCard
from adcore.errors import ConfigError

RENAMED = {  # another name -> the name here; a model's card adds names of its own settings
    "max_epochs": "epochs",
    "num_epochs": "epochs",
    "early_stopping_patience": "patience",
    "img_size": "image_size",
    "input_size": "image_size",
    "target_size": "image_size",
    "center_crop": "crop_size",
    "resize_method": "resize",
    "lr": "learning_rate",
    "train_batch_size": "batch_size",
    "encoder_name": "backbone",
    "gradient_clip_val": "clip_norm",
    "accumulate_grad_batches": "accumulate",
    "check_val_every_n_epoch": "validate_every",
}
LEFT_OUT = {  # what has no meaning here -> what to do instead
    "eval_batch_size": "leave it out: images are scored one at a time on a CPU, and in batches of batch_size on a GPU",
    "pin_memory": "leave it out here, or give it to set_globals",
    "persistent_workers": "leave it out: processes that read images live as long as the training",
    "accelerator": "use --device or --gpus",
    "devices": "use --devices, or the key `devices` of a condition",
    "gpu_id": "use --gpus",
    "task": "leave it out: maps and masks are used where they are there",
    "strategy": "leave it out: `devices` alone says how many processes share each batch",
    "limit_train_batches": "use max_steps",
    "fast_dev_run": "use max_steps=1",
    "log_every_n_steps": "leave it out: every step is in the log",
    "deterministic": "leave it out: a seed gives the same results each time",
}


def _pre_trained(value: Any) -> dict[str, Any]:
    """True is the default; False asks for random weights."""
    return {} if value is True or value is None else {"weights": "random"} if value is False else {"weights": value}


def _normalize(value: Any) -> dict[str, Any]:
    return (
        {}
        if value is True or value is None
        else {"normalization": "none"}
        if value is False
        else {"normalization": value}
    )


CONVERTED: dict[str, Callable[[Any], dict[str, Any]]] = {  # another name -> the settings that its value means
    "pre_trained": _pre_trained,
    "pretrained": _pre_trained,
    "normalize": _normalize,
}


def known_spellings(card: ModelCard) -> dict[str, str]:
    """Other name -> setting, for this model."""
    return {**RENAMED, **card.spellings}


def translate(card: ModelCard, settings: Iterable[str], given: dict[str, Any]) -> dict[str, Any]:
    """`given` by the names of `settings`, those of the model, of its training and of preprocessing.

    A name of `settings` is never taken for another one. None, as another name's value, asks for the default. Raises
    ConfigError where two names of one setting are given, and for a name that has no meaning here, with what to use instead.
    """
    valid, names = set(settings), known_spellings(card)
    found: dict[str, tuple[str, Any]] = {}  # setting -> (the name that was written, value)
    for key, value in _with_momentum(card, valid, given).items():
        if key in valid:
            means = {key: value}
        elif key in CONVERTED:
            means = CONVERTED[key](value)
        elif key in names:
            means = {names[key]: value} if value is not None else {}
        elif key in LEFT_OUT:
            raise ConfigError(f"{key} is not a setting; {LEFT_OUT[key]}")
        else:
            means = {key: value}  # refused by whoever knows all settings
        for name, what in means.items():
            if name in found:
                raise ConfigError(f"{key} stands beside {found[name][0]}, which means the same; remove one")
            found[name] = (key, what)
    return {name: value for name, (_, value) in found.items()}


def _with_momentum(card: ModelCard, valid: set[str], given: dict[str, Any]) -> dict[str, Any]:
    """`momentum` beside `optimizer: sgd` belongs to that optimizer."""
    if "momentum" not in given or "momentum" in valid:
        return given
    rest = {key: value for key, value in given.items() if key != "momentum"}
    optimizer = rest.get("optimizer")
    if isinstance(optimizer, str) and optimizer.lower() in ("sgd", "rmsprop"):
        return {**rest, "optimizer": {"type": optimizer, "momentum": given["momentum"]}}
    raise ConfigError(
        'momentum is an option of an optimizer; write optimizer={"type": "sgd", "momentum": '
        f"{given['momentum']}}}, or leave it out: {card.name} has its own optimizer"
    )
