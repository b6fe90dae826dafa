"""How the networks of a fit run: memory layout, cuDNN's algorithms and torch's compiler. Results change by rounding."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from adcore.errors import ConfigError, TrainingError
from adcore.training.device import check_precision

if TYPE_CHECKING:
    from adcore.model import AnomalyModel, Batch, Fit
    from adcore.training.plan import Plan

CONTAINERS = (nn.ModuleList, nn.ModuleDict)  # whose parts are called, not they themselves


@contextmanager
def fast_networks(model: AnomalyModel, fit: Fit) -> Iterator[None]:
    """Inside, the networks of `model` run as the plan and the device of `fit` say; afterwards as before."""
    with ExitStack() as stack:
        if fit.device.type == "cuda":
            stack.enter_context(_autotuned())
        if fit.plan.channels_last:
            stack.callback(model.to, memory_format=torch.contiguous_format)
            model.to(memory_format=torch.channels_last)
        if fit.plan.compile:
            stack.enter_context(_compiled(model, fit))
        yield


def with_layout(batch: Batch, plan: Plan) -> Batch:
    """The batch with its images in the memory layout of the networks."""
    if not plan.channels_last:
        return batch
    return replace(batch, images=batch.images.contiguous(memory_format=torch.channels_last))


def check_plan(plan: Plan, device: torch.device) -> None:
    """ConfigError for a plan that `device` cannot carry out: a precision that it lacks, or what cannot be compiled."""
    check_precision(plan.precision, device)
    if not plan.compile:
        return
    if device.type == "cpu" and not shutil.which(os.environ.get("CXX", "g++")):
        raise ConfigError("compile=true needs a C++ compiler (g++, or another in CXX) on a CPU; use compile=false")
    if device.type == "cpu" and plan.precision == "mixed":  # seen with torch 2.14.1 and a ResNet of timm
        raise ConfigError(
            "on a CPU torch.compile gives NaN gradients in half precision; use compile=false, or precision=float32"
        )
    if device.type == "cuda" and find_spec("triton") is None:
        raise ConfigError("compile=true needs the package triton on a GPU; install it, or use compile=false")


@contextmanager
def _autotuned() -> Iterator[None]:
    """Inside, cuDNN tries its algorithms for each size, of which a fit has few, and keeps the fastest."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextmanager
def _compiled(model: AnomalyModel, fit: Fit) -> Iterator[None]:
    """Inside, what torch.compile made takes the place of each network's `forward`. The model's own code is not compiled.

    The first step is not either: some networks give their parameters a shape there, which the compiler does not follow.
    """
    networks = {network: name for name, network in _networks(model, "")}  # one that has two names once
    for network, name in networks.items():
        network.forward = _compiled_forward(name, network.forward, fit)
    try:
        yield
    finally:
        for network in networks:
            del network.forward


def _networks(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """The outermost submodules that are called, with their names."""
    for name, part in module.named_children():
        if isinstance(part, CONTAINERS):
            yield from _networks(part, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", part


def _compiled_forward(name: str, forward: Callable[..., Any], fit: Fit) -> Callable[..., Any]:
    compiled = torch.compile(forward)

    def run(*args: Any, **kwargs: Any) -> Any:
        if fit.step == 0:
            return forward(*args, **kwargs)
        try:
            return compiled(*args, **kwargs)
        except RuntimeError as error:
            forward(*args, **kwargs)  # an error of the network itself is raised here
            reason = str(error).strip().splitlines()[0]
            raise TrainingError(f"torch.compile fails in '{name}' ({reason}); use compile=false") from error

    return run
