"""How `adcore predict` and `adcore evaluate` import torch, torchvision and timm: without torch's compiler.

timm and torchvision import the compiler (`torch._dynamo`: 1.3 s and 150 MB) in order to mark functions for it; prediction
compiles nothing. So in the processes of these two commands a stand-in takes its place while those two are imported, before any
plugin is loaded, and only where every installed plugin is one of adcore's own. After that the stand-in is gone: who imports the
compiler then gets the real one. This is the only place of adcore that writes `sys.modules`.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

from adcore.plugins import discover

OWN = {"adcore", "adcore-runtime", "adm-memory", "adm-flow", "adm-distill", "adm-recon", "adm-foundation"}
COMPILER = "torch._dynamo"


def import_libraries() -> None:
    """Import torch and timm, in a process that has not imported torch yet and runs one thread; elsewhere do nothing.

    What is imported stays, so the garbage collector need not look through it, now or later.
    """
    if "torch" in sys.modules or threading.active_count() > 1:  # not a process that was started for this command
        return
    gc.disable()
    try:
        import torch  # noqa: F401

        if COMPILER in sys.modules or not all(_own(origin.distribution) for _, origin in discover()):
            return
        stand_ins = _stand_ins()
        sys.modules.update(stand_ins)
        try:
            import timm  # noqa: F401
        finally:
            for name in stand_ins:
                sys.modules.pop(name, None)
    finally:
        gc.freeze()
        gc.enable()


def _own(distribution: str) -> bool:
    return distribution in OWN or distribution.startswith("adcore-weights-")  # made by `adcore backbones pack`


def _stand_ins() -> dict[str, ModuleType]:
    compiler, utils = ModuleType(COMPILER), ModuleType(f"{COMPILER}.utils")
    compiler.disable, compiler.utils, utils.is_compile_supported = _disable, utils, _is_compile_supported
    return {module.__name__: module for module in (compiler, utils)}


def _disable(function: Callable | None = None, *_: Any, **__: Any) -> Callable:
    """`torch._dynamo.disable` for a process that compiles nothing: the function as it is."""
    return function if function is not None else lambda decorated: decorated


def _is_compile_supported(device: str) -> bool:
    from torch._dynamo.utils import is_compile_supported

    return is_compile_supported(device)
