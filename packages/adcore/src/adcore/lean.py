"""Imports torchvision and timm without torch's compiler, which takes a second and 150 MB.

Both touch it in passing, to mark functions that nobody compiles here. While they are imported, stand-ins give the answers
they need; anything else that is asked of those loads the real compiler, and so does any later use of it: torch's optimizers do
that, so what is saved is saved in prediction, evaluation and one-pass fits.
"""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

MANY = 30  # modules


class _StandIn(ModuleType):
    """A module that becomes the real one when it is asked for anything that it was not given."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        _withdraw()
        return getattr(importlib.import_module(self.__name__), name)


def _disable(function: Callable | None = None, *_: Any, **__: Any) -> Callable:
    """`torch._dynamo.disable` where nothing is compiled: the function as it is."""
    return function if function is not None else lambda decorated: decorated


def _stand_in() -> None:
    compiler, utils = _StandIn("torch._dynamo"), _StandIn("torch._dynamo.utils")
    compiler.disable, compiler.utils, utils.is_compile_supported = _disable, utils, lambda device: False
    sys.modules |= {module.__name__: module for module in (compiler, utils)}


def _withdraw() -> None:
    for name in ("torch._dynamo", "torch._dynamo.utils"):
        if isinstance(sys.modules.get(name), _StandIn):
            del sys.modules[name]


@contextmanager
def _one_collection() -> Iterator[None]:
    """Inside, the garbage collector waits: looking again and again through what stays takes a third of these imports.

    After many it looks once, so that it does not in the middle of a fit.
    """
    collecting, before = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
            if len(sys.modules) - before > MANY:
                gc.collect()


@contextmanager
def lean_imports() -> Iterator[None]:
    """Inside, what is imported sees stand-ins for torch's compiler, unless it is there already."""
    if "torch._dynamo" in sys.modules:  # also inside another `lean_imports`
        yield
        return
    _stand_in()
    try:
        with _one_collection():
            yield
    finally:
        _withdraw()


class _NoFilling(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in ("normal_", "uniform_", "fill_", "zero_"):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


@contextmanager
def shapes_only() -> Iterator[None]:
    """Inside, networks are built without memory for their weights, and without the time to draw them."""
    with torch.device("meta"), _NoFilling():
        yield
