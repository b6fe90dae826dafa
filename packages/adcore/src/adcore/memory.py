"""Memory that the C library keeps after it was freed, given back to the system."""

from __future__ import annotations

import ctypes


def trim() -> None:
    """Give freed memory back, between two stages of work (glibc's `malloc_trim`); elsewhere than with glibc: nothing."""
    try:
        function = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):  # Windows, macOS, another C library
        return
    function(0)
