"""Operations on anomaly maps that most models share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from adcore_runtime.roi import cells_of
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


def within(values: Tensor, seen: np.ndarray | None, fill: float | None = None) -> Tensor:
    """Values (B, h, w), a map or cells of one, with `fill` where nothing counts, or without it each one's lowest value.

    `seen` (H, W) bool, of the map's size: the pixels that count (AnomalyModel.roi_mask); None: all, and `values` as they are.
    """
    if seen is None:
        return values
    inside = torch.tensor(cells_of(seen, tuple(values.shape[-2:])), device=values.device)
    lowest = values.masked_fill(~inside, torch.inf).amin((-2, -1), keepdim=True) if fill is None else fill
    return torch.where(inside, values, lowest)


def highest(anomaly_map: Tensor, seen: np.ndarray | None) -> Tensor:
    """The largest value of each map (B, H, W), of the pixels that count: (B,)."""
    return within(anomaly_map, seen).flatten(1).amax(1)


def count_seen(seen: np.ndarray | None, grid: tuple[int, int]) -> int:
    """How many cells of a `grid` (rows, columns) over a map count."""
    return grid[0] * grid[1] if seen is None else int(np.count_nonzero(cells_of(seen, grid)))


def kept_cells(values: Tensor, seen: Sequence[np.ndarray] | None) -> Tensor:
    """The cells of (B, h, w, D) that count, for a bank: (N, D); `seen` is that of each image (Batch.seen)."""
    return values.flatten(0, 2) if seen is None else values[seen_cells(seen, values)]


def seen_cells(seen: Sequence[np.ndarray], values: Tensor) -> Tensor:
    """Which cells of (B, h, w, D) count: (B, h, w) bool, on their device."""
    return torch.tensor(np.stack([cells_of(one, tuple(values.shape[1:3])) for one in seen]), device=values.device)


def _gaussian(size: int, sigma: float, like: Tensor) -> Tensor:
    """Weights (size,) of a Gaussian around the middle, their sum 1."""
    offsets = torch.arange(size, dtype=like.dtype, device=like.device) - (size - 1) / 2
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    return kernel / kernel.sum()


def _border(pad: int, *sides: int) -> str:
    """Padding mode at the border: reflection needs more pixels than the padding."""
    return "reflect" if pad < min(sides) else "replicate"
