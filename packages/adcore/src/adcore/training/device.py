"""Seeds and devices."""

from __future__ import annotations

import random

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


def has_mixed_precision(device: torch.device) -> bool:
    """Whether half precision is quick there: always on CUDA; on a CPU only with instructions for bfloat16."""
    if device.type == "cpu":
        return getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()  # a torch without the question: no
    return device.type == "cuda"


def check_precision(precision: str, device: torch.device) -> None:
    """ConfigError for a precision that the device cannot train in."""
    if precision == "mixed" and not has_mixed_precision(device):
        raise ConfigError("precision=mixed needs CUDA or a CPU with bfloat16 instructions; use precision=float32")


def at_least_single(x: Tensor) -> Tensor:
    """Half precision, as mixed precision gives it, becomes single; anything finer stays."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
