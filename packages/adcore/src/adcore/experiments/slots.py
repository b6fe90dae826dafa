"""Slots: the CPU or GPUs of this machine, which runs take one or several of, and the threads of each."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adcore.errors import ConfigError

if TYPE_CHECKING:
    from adcore.experiments.executors import Job
    from adcore.experiments.session import Run

CPU = "cpu"
ANY_GPU = "cuda"  # the engine chooses which
MIG = "MIG-"  # how names of parts of GPUs begin


@dataclass(eq=False)
class Slot:
    """The CPU, a GPU by number or UUID, or a place of an engine's queue, which one run has at a time.

    A run on several GPUs takes a slot of each; on the CPU and in a queue it takes one for all its processes.
    """

    device: str
    most: int | None = None  # devices that a run can have in a queue, where that is known
    job: Job | None = None  # where a run takes several slots, of the first one alone
    run: Run | None = None
    log_start: int = 0  # offset of this attempt in the run's log

    @property
    def one_gpu(self) -> bool:
        """Whether this is a GPU of its own."""
        return self.device not in (CPU, ANY_GPU)


def environment_of(slots: Sequence[Slot]) -> dict[str, str]:
    """Environment variables that show a process only the GPUs of these slots, numbered as nvidia-smi does."""
    gpus = [slot.device for slot in slots if slot.one_gpu]
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpus), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if gpus else {}


def room_for(devices: int, free: Sequence[Slot]) -> list[Slot]:
    """The slots of `free` that a run on `devices` devices takes; none where they are too few."""
    for slot in free:
        if devices == 1 or not slot.one_gpu:
            return [slot]
    gpus = list({slot.device: slot for slot in reversed(free)}.values())[::-1]  # each once, the first slot of it
    return gpus[:devices] if len(gpus) >= devices else []


def check_room(runs: Iterable[tuple[str, int]], slots: Sequence[Slot]) -> None:
    """ConfigError where one of `runs`, (name, devices), would wait for ever, since there are fewer devices than it takes."""
    gpus = {slot.device for slot in slots}
    for name, devices in runs:
        if devices == 1 or any(not slot.one_gpu and devices <= (slot.most or devices) for slot in slots):
            continue
        most = next((slot.most for slot in slots if slot.most), len(gpus))
        if any(gpu.startswith(MIG) for gpu in gpus):
            raise ConfigError(f"condition '{name}': devices={devices}, but parts of GPUs (MIG) cannot train together")
        if devices > most:
            raise ConfigError(
                f"condition '{name}': devices={devices}, but a run can have {most} here; use devices={most} or less"
                + ("" if CPU in gpus else ", or --gpus none for processes on the CPU")
            )


def pick_slots(gpus: str, jobs: int | None) -> list[Slot]:
    """A slot for each GPU, or more for `jobs` runs. `gpus`: "auto" (all there are, else the CPU), "none", or "0,2"."""
    import torch

    visible = [part.strip() for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part.strip()]
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count and visible and visible[0].startswith(MIG):
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
    return [Slot(devices[number % len(devices)]) for number in range(max(jobs or 0, len(devices)))]


def threads_for(slots: Sequence[Slot]) -> int | None:
    """Threads of each run where several share the CPU; None leaves it to torch. OMP_NUM_THREADS, where set, decides."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal():
        return int(asked)
    at_once = sum(slot.device == CPU for slot in slots)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // at_once) if at_once else None
