"""Operations on anomaly maps that most models share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def upsample(maps: Tensor, size: tuple[int, int] | torch.Size, align_corners: bool = False) -> Tensor:
    """(B, h, w) -> (B, H, W), bilinear."""
    return F.interpolate(maps[:, None], tuple(size), mode="bilinear", align_corners=align_corners)[:, 0]


def gaussian_blur(maps: Tensor, sigma: float, kernel_size: int | None = None) -> Tensor:
    """Blur (B, H, W) with a Gaussian of `sigma` pixels; borders are reflected, the kernel spans 4 sigma to each side.

    Two one-dimensional passes: a 33 x 33 kernel costs 66 products a pixel instead of 1,089.
    """
    size = kernel_size or 2 * int(4.0 * sigma + 0.5) + 1
    kernel = _gaussian(size, sigma, maps)
    pad = size // 2
    padded = F.pad(maps[:, None], (pad, pad, pad, pad), mode=_border(pad, *maps.shape[-2:]))
    rows = F.conv2d(padded, kernel.view(1, 1, 1, size))
    return F.conv2d(rows, kernel.view(1, 1, size, 1))[:, 0]


def _gaussian(size: int, sigma: float, like: Tensor) -> Tensor:
    """Weights (size,) of a Gaussian around the middle, their sum 1."""
    offsets = torch.arange(size, dtype=like.dtype, device=like.device) - (size - 1) / 2
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    return kernel / kernel.sum()


def _border(pad: int, *sides: int) -> str:
    """Padding mode at the border: reflection needs more pixels than the padding."""
    return "reflect" if pad < min(sides) else "replicate"
