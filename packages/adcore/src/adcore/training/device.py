"""Seeds and devices."""

from __future__ import annotations

import platform
import random
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adcore.errors import ConfigError


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def pick_device(name: str) -> torch.device:
    """The device called `name`; "auto" is CUDA where there is one. A GPU that was asked for and is absent is an error."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"unknown device '{name}'; valid ones: auto, cpu, cuda, cuda:1, ...") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device '{name}' was asked for, but torch sees no GPU; use --device cpu")
    return device


def device_record(device: torch.device) -> dict[str, Any]:
    """What result.json says of a device: device, name, and of a GPU its memory in MB, its driver and CUDA's version."""
    if device.type != "cuda":
        return {"device": str(device), "name": _processor()}
    memory = round(torch.cuda.get_device_properties(device).total_memory / 2**20)
    record = {"device": str(device), "name": torch.cuda.get_device_name(device), "memory_mb": memory}
    return {**record, "driver": _driver(), "cuda": torch.version.cuda}


def peak_memory_mb() -> dict[str, float | None]:
    """Peak memory of this process in MB: {"process"} (None where the system does not say), {"gpu"} where one was used."""
    used = {"process": _peak_of_process()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        used["gpu"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return used


def _peak_of_process() -> float | None:
    with suppress(OSError, TypeError):  # Linux: of this program alone; ru_maxrss may count the program that started it
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="ignore")
        return round(int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 2**10, 1)
    with suppress(ImportError):  # macOS and others
        import resource

        unit = 2**20 if sys.platform == "darwin" else 2**10
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)
    with suppress(ImportError, AttributeError):  # Windows
        import psutil

        return round(psutil.Process().memory_info().peak_wset / 2**20, 1)
    return None


def _processor() -> str:
    with suppress(OSError, TypeError):  # Linux, where Python's answer is the kind alone, or nothing
        information = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        return re.search(r"model name\s*:\s*(.+)", information)[1].strip()
    return platform.processor() or platform.machine()


def _driver() -> str | None:
    """The version of NVIDIA's driver; None where neither NVML nor Linux says it."""
    with suppress(Exception):  # NVML raises types of its own
        import pynvml

        pynvml.nvmlInit()
        version = pynvml.nvmlSystemGetDriverVersion()
        return version.decode() if isinstance(version, bytes) else version
    with suppress(OSError, TypeError):
        return re.search(r"\d+\.\d[\d.]*", Path("/proc/driver/nvidia/version").read_text(encoding="ascii"))[0]
    return None


def has_mixed_precision(device: torch.device) -> bool:
    """Whether half precision is quick there: always on CUDA; on a CPU only with instructions for bfloat16."""
    if device.type == "cpu":
        return getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()  # a torch without the question: no
    return device.type == "cuda"


def check_precision(precision: str, device: torch.device) -> None:
    """ConfigError for a precision that the device cannot train in."""
    if precision == "mixed" and not has_mixed_precision(device):
        raise ConfigError("precision=mixed needs CUDA or a CPU with bfloat16 instructions; use precision=float32")


def half_precision(device: torch.device) -> torch.dtype:
    """The type that mixed precision computes in: bfloat16 on a CPU and on GPUs that have it, float16 on others."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16


def at_least_single(x: Tensor) -> Tensor:
    """Half precision, as mixed precision gives it, becomes single; anything finer stays."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
