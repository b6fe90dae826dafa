"""Resizing in numpy: antialiased bilinear is linear and separable, so it is one matrix for rows and one for columns.

The weights are those of torch's `interpolate(mode="bilinear", antialias=True)`, in its float32 arithmetic. A matrix is
banded; it is applied in blocks of outputs, each to the inputs that these need.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

BLOCK = 16  # outputs


class Band(NamedTuple):
    """Outputs `target` are `weights` (outputs, inputs) times inputs `source`."""

    target: slice
    source: slice
    weights: np.ndarray


def bilinear(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(C, H, W) float32 -> (C, *size), antialiased: A X B^T with A (h, H) and B (w, W)."""
    channels, height, width = image.shape
    h, w = size
    rows = image.reshape(channels * height, width)
    if width != w:
        narrow = np.empty((channels * height, w), np.float32)
        for band in bands(width, w):
            narrow[:, band.target] = rows[:, band.source] @ band.weights.T
        rows = narrow
    planes = rows.reshape(channels, height, w)
    if height == h:
        return planes
    resized = np.empty((channels, h, w), np.float32)
    for band in bands(height, h):
        np.matmul(band.weights, planes[:, band.source], out=resized[:, band.target])
    return resized


def nearest(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(C, H, W) -> (C, *size): the pixel whose area holds the output's centre, torch's "nearest-exact"."""
    rows, columns = (_nearest(before, after) for before, after in zip(image.shape[1:], size, strict=True))
    return image[:, rows[:, None], columns]


@lru_cache(maxsize=8)
def bands(before: int, after: int) -> tuple[Band, ...]:
    """The matrix (after, before) of one direction as bands."""
    scale = np.float32(before) / np.float32(after)  # inputs an output
    support = max(scale, np.float32(1))
    inverse = float(np.float32(1) / support)
    centers = (float(scale) * (np.arange(after) + 0.5)).astype(np.float32)
    lowest = np.maximum((centers - support + 0.5).astype(np.int64), 0)
    highest = np.minimum((centers + support + 0.5).astype(np.int64), before)
    found = []
    for start in range(0, after, BLOCK):
        target = slice(start, min(start + BLOCK, after))
        first, last = int(lowest[start]), int(highest[target.stop - 1])
        inputs = np.arange(first, last)
        offsets = inputs.astype(np.float32) - centers[target, None]  # (outputs, inputs)
        weights = np.maximum(1 - np.abs(((offsets + 0.5) * inverse).astype(np.float32)), 0)  # a triangle
        weights[(inputs < lowest[target, None]) | (inputs >= highest[target, None])] = 0
        weights /= weights.sum(1, keepdims=True)
        found.append(Band(target, slice(first, last), weights))
    return tuple(found)


def _nearest(before: int, after: int) -> np.ndarray:
    scale = float(np.float32(before) / np.float32(after))
    source = np.floor(((np.arange(after) + 0.5) * scale).astype(np.float32)).astype(np.int64)
    return np.minimum(source, before - 1)
