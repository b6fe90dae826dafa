"""What a process does first that another one of adcore's started."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from typing import Any

import torch

from adcore.settings import set_globals


def begin_child(threads: int, values: dict[str, Any]) -> None:
    """Leave Ctrl-C to the process that started this one, end with it, whatever ended it, and take over its settings."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    set_globals(**values)


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
