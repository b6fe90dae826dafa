"""How much memory there is, returning freed memory to the system, and recognising out-of-memory errors."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

SHARE_OF_MEMORY = 0.25  # of what is available, that images or maps which can lie on the disk may take


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


def available_memory() -> int:
    """Bytes of memory that can be taken without others' being moved to disk; half of all memory where that is not known."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("MemAvailable"))) * 1024
    except (OSError, StopIteration, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, OSError, ValueError):  # Windows
        return 2 << 30
