"""Checkpoints: all that a fit needs to go on as if it had never stopped, as safetensors and JSON, never a pickle."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from adcore import tensorfile
from adcore.artifact import load_state
from adcore.errors import ArtifactError, TrainingError

if TYPE_CHECKING:
    from adcore.training.trainer import Trainer

_ADVICE = "start again without --resume"
CHECKPOINT = tensorfile.Kind("adcore_checkpoint", "adcore checkpoint", _ADVICE)
WEIGHTS = tensorfile.Kind("adcore_weights", "adcore file of weights", _ADVICE)
_FORMAT = 3  # grows when an older checkpoint can no longer be continued


def save_weights(path: Path, model: nn.Module) -> None:
    """Write the state of `model` alone to `path` atomically."""
    tensorfile.write(path, WEIGHTS, {}, model.state_dict())


def load_weights(path: Path, model: nn.Module, device: torch.device) -> None:
    """Put what `save_weights` wrote into `model`; ArtifactError for a damaged file."""
    _, tensors = _read(path, WEIGHTS)
    with _applied(path):
        load_state(model, {key: value.to(device) for key, value in tensors.items()})


def save_checkpoint(path: Path, trainer: Trainer, identity: dict[str, Any]) -> None:
    """Write the trainer's whole state to `path` atomically; `identity` says what run this is."""
    tensors: dict[str, Tensor] = {f"model/{key}": value for key, value in trainer.model.state_dict().items()}
    record: dict[str, Any] = {"format": _FORMAT, "identity": identity, "progress": _progress(trainer)}
    record |= {"stepper": trainer.stepper.state(), "optimizers": {}}
    for name, optimization in trainer.optimizations.items():
        state = optimization.optimizer.state_dict()
        numbers: dict[str, dict[str, Any]] = {}
        for index, entries in state["state"].items():
            for key, value in entries.items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer/{name}/{index}/{key}"] = value
                else:
                    numbers.setdefault(str(index), {})[key] = value
        record["optimizers"][name] = {"groups": state["param_groups"], "numbers": numbers}
    random_tensors, record["random"] = _random_state(trainer.device)
    tensors |= random_tensors
    tensorfile.write(path, CHECKPOINT, record, tensors)


def load_checkpoint(path: Path, trainer: Trainer, identity: dict[str, Any]) -> None:
    """Put the state of `path` into a trainer that has prepared its model and optimizers.

    Raises ArtifactError for a damaged file, TrainingError when it belongs to another run.
    """
    record, tensors = _read(path, CHECKPOINT)
    if record.get("format") != _FORMAT:
        raise ArtifactError(f"{path} was written by another version of adcore; {_ADVICE}")
    with _applied(path):
        check_identity(path, record["identity"], identity)
        load_state(trainer.model, _below(tensors, "model/"))
        trainer.stepper.load_state(record["stepper"])  # before the optimizers: it moves their learning rates
        for name, optimization in trainer.optimizations.items():
            stored = record["optimizers"][name]
            _load_optimizer(optimization.optimizer, stored, _below(tensors, f"optimizer/{name}/"))
        _set_progress(trainer, record["progress"])
        _set_random_state(tensors, record["random"], trainer.device)


def _progress(trainer: Trainer) -> dict[str, Any]:
    """Where the fit stands."""
    return {
        "epoch": trainer.fit.epoch,
        "step": trainer.fit.step,
        "steps_in_epoch": trainer.steps_in_epoch,
        "sums": trainer.sums,
        "history": trainer.history,
        "logged": trainer.logged,
        "logs": trainer.logs,
        "stop_reason": trainer.stop_reason,
        "stopping": trainer.stopping.state() if trainer.stopping else None,
    }


def _set_progress(trainer: Trainer, state: dict[str, Any]) -> None:
    trainer.fit.epoch, trainer.fit.step = state["epoch"], state["step"]
    trainer.steps_in_epoch, trainer.sums = state["steps_in_epoch"], state["sums"]
    trainer.history, trainer.logged, trainer.logs = state["history"], state["logged"], state["logs"]
    trainer.stop_reason = state["stop_reason"]
    if trainer.stopping and state["stopping"]:
        trainer.stopping.load_state(state["stopping"])


def _load_optimizer(optimizer: torch.optim.Optimizer, stored: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Any]] = {int(i): dict(numbers) for i, numbers in stored["numbers"].items()}
    for key, value in tensors.items():
        index, _, entry = key.partition("/")
        state.setdefault(int(index), {})[entry] = value
    groups = [
        {**group, **{key: tuple(value) for key, value in group.items() if key == "betas"}} for group in stored["groups"]
    ]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _read(path: Path, kind: tensorfile.Kind) -> tuple[dict[str, Any], dict[str, Tensor]]:
    record = tensorfile.read_record(path, kind)
    tensors = tensorfile.read_tensors(path, kind)
    tensorfile.verify(path, kind, record, tensors)
    return record, tensors


@contextmanager
def _applied(path: Path) -> Iterator[None]:
    """Inside, content that does not fit the run is an ArtifactError that names the file."""
    try:
        yield
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}; {_ADVICE}") from None
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ArtifactError(f"{path} does not fit this run ({reason}); {_ADVICE}") from error


def check_identity(path: Path, stored: dict[str, Any], present: dict[str, Any]) -> None:
    """TrainingError naming what differs between the run of the checkpoint and this one."""
    present = json.loads(json.dumps(present))  # tuples to lists, as in the file
    different = [key for key in sorted(stored.keys() | present.keys()) if stored.get(key) != present.get(key)]
    if different:
        changes = "; ".join(f"{key} was {stored.get(key)}, is {present.get(key)}" for key in different)
        raise TrainingError(f"{path} is of another run: {changes}; use the same settings, or another --out")


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _random_state(device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The generators of torch, the fit's GPU, NumPy and Python: (tensors, plain data)."""
    kind, keys, position, has_gauss, cached = np.random.get_state()
    tensors = {"random/torch": torch.get_rng_state(), "random/numpy": torch.from_numpy(keys.astype(np.int64))}
    if device.type == "cuda":  # that of the first process: each of several goes on with it, on its own GPU
        tensors["random/cuda"] = torch.cuda.get_rng_state(device)
    return tensors, {"numpy": [kind, position, has_gauss, cached], "python": random.getstate()}


def _set_random_state(tensors: dict[str, Tensor], plain: dict[str, Any], device: torch.device) -> None:
    torch.set_rng_state(tensors["random/torch"])
    kind, position, has_gauss, cached = plain["numpy"]
    keys = tensors["random/numpy"].numpy().astype(np.uint32)
    np.random.set_state((kind, keys, position, has_gauss, cached))
    version, state, gauss = plain["python"]
    random.setstate((version, tuple(state), gauss))
    if device.type == "cuda" and "random/cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random/cuda"], device)
