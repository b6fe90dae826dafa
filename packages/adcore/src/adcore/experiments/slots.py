"""Slots: the CPU or GPUs of this machine that run one run at a time, and the threads of each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adcore.errors import ConfigError

if TYPE_CHECKING:
    from adcore.experiments.executors import Job
    from adcore.experiments.session import Run

CPU = "cpu"
ANY_GPU = "cuda"  # the engine chooses which


@dataclass
class Slot:
    """The CPU, or a GPU by number or UUID, which runs one run at a time."""

    device: str
    job: Job | None = None
    run: Run | None = None
    log_start: int = 0  # offset of this attempt in the run's log

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that show a process only this slot's GPU, numbered as nvidia-smi does."""
        if self.device in (CPU, ANY_GPU):
            return {}
        return {"CUDA_VISIBLE_DEVICES": self.device, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def pick_slots(gpus: str, jobs: int | None) -> list[Slot]:
    """Slots for `jobs` runs at a time. `gpus`: "auto" (all there are, else the CPU), "none", or numbers such as "0,2"."""
    import torch

    visible = [part.strip() for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part.strip()]
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count and visible and visible[0].startswith("MIG-"):
        count = len(visible)  # of parts of GPUs (MIG) a process sees one alone; each run gets its own
    numbers = list(range(count))
    if gpus == "none" or (gpus == "auto" and not count):
        devices = [CPU]
    else:
        if gpus != "auto":
            parts = [part.strip() for part in gpus.split(",")]
            wrong = [part for part in parts if not part.isdecimal() or int(part) >= count]
            if wrong:
                raise ConfigError(
                    f"--gpus {gpus}: there is no GPU '{wrong[0]}', there are {count}; use --gpus auto or none"
                )
            numbers = [int(part) for part in parts]
        devices = [visible[number] if visible else str(number) for number in numbers]
    return [Slot(devices[number % len(devices)]) for number in range(jobs or len(devices))]


def threads_for(slots: Sequence[Slot]) -> int | None:
    """Threads of each run where several share the CPU; None leaves it to torch. OMP_NUM_THREADS, where set, decides."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal():
        return int(asked)
    at_once = sum(slot.device == CPU for slot in slots)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // at_once) if at_once else None
