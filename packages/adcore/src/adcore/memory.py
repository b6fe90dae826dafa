"""Memory that libraries keep for later, given back to the system. Where it is not known how, nothing happens."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch


def trim() -> None:
    """Return what was freed but is kept by the C library, for each thread apart: a millisecond or two, for any time."""
    if function := _function(None, "malloc_trim"):
        function(0)


def give_back() -> None:
    """`trim`, and return MKL's buffers: some 20 MB after a large product; for the end of a stage of work."""
    if function := _function(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"), "mkl_serv_free_buffers"):
        function()
    trim()


@cache
def _function(library: str | None, name: str) -> Callable[..., int] | None:
    try:
        return getattr(ctypes.CDLL(library), name)
    except (OSError, AttributeError, TypeError):  # no Linux, another C library, or torch without MKL
        return None
