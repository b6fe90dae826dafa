"""How a process of adcore's starts another one, and what that does first."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any

import torch

from adcore.settings import set_globals


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Inside, Ctrl-C waits, and a process that is started never gets it, not even while it imports what it needs."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # starting it would end the waiting
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def begin_child(threads: int, values: dict[str, Any]) -> None:
    """Leave Ctrl-C to the process that started this one, end with it, whatever ended it, and take over its settings."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    set_globals(**values)


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
