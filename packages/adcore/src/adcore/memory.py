"""Memory that the C library keeps after it was freed, given back to the system; and whether there was too little of it."""

from __future__ import annotations

import ctypes


def trim() -> None:
    """Give freed memory back, between two stages of work (glibc's `malloc_trim`); elsewhere than with glibc: nothing."""
    try:
        function = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):  # Windows, macOS, another C library
        return
    function(0)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python or torch says that memory, of the machine or of a GPU, did not suffice."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and ("DefaultCPUAllocator" in str(error) or "out of memory" in str(error))
