"""Idle GPUs, by NVML."""

from __future__ import annotations

import time
from collections.abc import Sequence

from adcore.errors import ConfigError
from adcore.experiments.slots import CPU, Slot

EVERY = 5.0  # seconds between two queries of one GPU, also after a start: a new run takes a moment to use it


class IdleGpus:
    """Whether a GPU is idle: utilisation and used memory are at most the given percentages.

    Raises ConfigError where NVML is not installed, or does not work.
    """

    def __init__(self, use: float = 10.0, memory: float = 10.0) -> None:
        try:
            import pynvml
        except ImportError:
            raise ConfigError('--wait-idle needs one more package: pip install "adcore[gpu]"') from None
        self.nvml, self.use, self.memory = pynvml, use, memory
        self.asked: dict[str, float] = {}
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise ConfigError(f"--wait-idle: NVML does not work here: {error}") from None

    def __call__(self, device: str) -> bool:
        """Whether the GPU with this number or UUID is idle; False too when it was asked about just now."""
        now = time.monotonic()
        if now - self.asked.get(device, -EVERY) < EVERY:
            return False
        self.asked[device] = now
        handle = (
            self.nvml.nvmlDeviceGetHandleByIndex(int(device))
            if device.isdecimal()
            else self.nvml.nvmlDeviceGetHandleByUUID(device)
        )
        try:
            busy = self.nvml.nvmlDeviceGetUtilizationRates(handle).gpu
        except self.nvml.NVMLError_NotSupported:  # a part of a GPU (MIG): its memory tells
            busy = 0
        used = self.nvml.nvmlDeviceGetMemoryInfo(handle)
        return busy <= self.use and 100 * used.used / used.total <= self.memory


def need_gpus(slots: Sequence[Slot]) -> None:
    """ConfigError where a slot is no GPU."""
    if any(slot.device == CPU for slot in slots):
        raise ConfigError("--wait-idle waits for GPUs, and the runs would go to the CPU; leave it out")
