"""Returning freed memory to the system, and recognising out-of-memory errors."""

from __future__ import annotations

import ctypes


def trim() -> None:
    """Return freed memory to the system between two stages of work (`malloc_trim`); without glibc nothing happens."""
    try:
        function = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):  # Windows, macOS, another C library
        return
    function(0)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python or torch means that the machine or a GPU is out of memory."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and ("DefaultCPUAllocator" in str(error) or "out of memory" in str(error))
