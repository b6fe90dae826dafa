"""All preprocessing inside a graph: frames of one camera, whose size is known, become a model's input."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from adcore_runtime.geometry import centred, check_roi, inner_size, region_of, standard_noise
from adcore_runtime.resize import bands
from torch import Tensor, nn

from adcore.preprocess import Preprocess


class CameraInput(nn.Module):
    """uint8 frames (N, H, W, C) of `camera` (height, width) -> (N, C, h, w) float32, as `Preprocess` but not normalised.

    Bilinear resizing is A X B^T with two constant matrices: the Resize operators of the backends differ from torch by up
    to 0.04 where they antialias.
    """

    def __init__(self, preprocess: Preprocess, camera: tuple[int, int]) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.seen = region_of(preprocess.region, *camera)
        check_roi(preprocess.roi, *camera)
        mask = preprocess.roi.mask[self.seen] if preprocess.roi else np.ones((1, 1), bool)
        self.register_buffer("counts", torch.tensor(mask[..., None]))  # (H, W, 1)
        if preprocess.region:
            camera = preprocess.region[3], preprocess.region[2]
        self.inner = inner_size(preprocess.resize, preprocess.size, *camera)
        self.resized = self.inner != camera
        if self.resized and preprocess.resize == "nearest":
            rows, columns = (_nearest(*sides) for sides in zip(camera, self.inner, strict=True))
        else:
            rows, columns = (_weights(*sides) for sides in zip(camera, self.inner, strict=True))
            columns = columns.t().contiguous()
        self.register_buffer("rows", rows)  # A: (h, H), or the indices of rows (h,)
        self.register_buffer("columns", columns)  # B^T: (W, w), or the indices of columns (w,)
        self.register_buffer("noise", torch.from_numpy(standard_noise(preprocess.size).copy()))  # (h, w)

    def forward(self, frames: Tensor) -> Tensor:
        """(N, H, W, C) uint8 -> (N, C, h, w)."""
        if self.preprocess.region:
            frames = frames[:, self.seen[0], self.seen[1]]
        values = frames.float() / 255
        if self.preprocess.value_range:
            low, high = self.preprocess.value_range
            values = (values - low) / (high - low)
        if self.preprocess.roi:
            values = values * self.counts
        planes = self.resize(values)
        if self.inner != self.preprocess.size:
            planes = self.pad(planes)
        if self.preprocess.crop:
            rows, columns = centred(self.preprocess.size, self.preprocess.crop)
            planes = planes[..., rows, columns]
        return planes

    def resize(self, values: Tensor) -> Tensor:
        """(N, H, W, C) -> (N, C, *inner)."""
        if not self.resized:
            return values.permute(0, 3, 1, 2)
        if self.preprocess.resize == "nearest":
            return values.index_select(1, self.rows).index_select(2, self.columns).permute(0, 3, 1, 2)
        rows = self.rows @ values.flatten(2)  # (N, h, W * C): the frame stays as it lies in memory
        # the product comes before a transposition, not before the normalisation: OpenVINO fails to fuse these two
        return (rows.unflatten(2, values.shape[2:]).transpose(2, 3) @ self.columns).transpose(1, 2)

    def pad(self, planes: Tensor) -> Tensor:
        """(N, C, *inner) in the middle of zeros or noise: (N, C, *size)."""
        (height, width), (inner_height, inner_width) = self.preprocess.size, self.inner
        rows, columns = centred(self.preprocess.size, self.inner)
        around = (columns.start, width - inner_width - columns.start, rows.start, height - inner_height - rows.start)
        padded = F.pad(planes, around)
        if self.preprocess.resize != "noise-padding":
            return padded
        values = planes.flatten(1)  # noise like the image: its mean and deviation, within its range
        mean, deviation = values.mean(1), values.std(1, correction=0)
        low, high, mean, deviation = (v[:, None, None, None] for v in (values.amin(1), values.amax(1), mean, deviation))
        noise = torch.minimum(torch.maximum(self.noise * deviation + mean, low), high)
        return torch.where(F.pad(torch.ones_like(planes), around) > 0, padded, noise)


def _weights(before: int, after: int) -> Tensor:
    """The matrix (after, before) that resizes one direction."""
    matrix = torch.zeros(after, before)
    for band in bands(before, after):
        matrix[band.target, band.source] = torch.from_numpy(band.weights)
    return matrix


def _nearest(before: int, after: int) -> Tensor:
    """(after,) int64: the index that each output of "nearest-exact" takes."""
    numbers = torch.arange(before, dtype=torch.float64)[None, None]
    return F.interpolate(numbers, after, mode="nearest-exact")[0, 0].long()
