"""What holds for every test: one thread for each process, since pytest runs one on every core, and no test by the clock."""

from __future__ import annotations

import os
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; the workers and what tests start inherit it

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job; children would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("suite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

# The longest files; they go first, so that at the end no core waits for another one.
LONGEST = (
    "tests/test_docs.py",
    "tests/test_new_plugin.py",
    "tests/test_experiments.py",
    "tests/test_resume.py",
    "tests/parity/",
)

# Tracing a network takes 3 to 60 seconds: a few small models are exported in every run, the others with `-m slow`.
QUICK_EXPORTS = {"patchcore-resnet18", "ganomaly", "dinomaly-gem"}


def pytest_xdist_auto_num_workers() -> int:
    """A process more than there are cores: tests that wait for a process of their own leave one idle."""
    return len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)) + 1


@pytest.hookimpl(tryfirst=True)  # before pytest chooses by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow, what another card has computed already, and what needs CUDA; put the longest files first."""
    from adcore.testing.card_conformance import (
        CardConformance,
    )  # imports torch, which the process that hands out tests need not

    for item in items:
        if item.name == "test_on_gpu":
            item.add_marker("gpu")
        if item.name == "test_exports" and getattr(item.cls, "model", "") not in QUICK_EXPORTS:
            item.add_marker("slow")
        if getattr(item.cls, "repeats", None) and not hasattr(CardConformance, item.originalname):
            item.add_marker("slow")
    items.sort(key=lambda item: not any(name in item.nodeid for name in LONGEST))
