"""Resizing in numpy: antialiased bilinear is linear and separable, so it is one matrix for rows and one for columns.

The weights are those of torch's `interpolate(mode="bilinear", antialias=True)`, in its float32 arithmetic. A matrix is
banded; it is applied in blocks of outputs, each to the inputs that these need.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

BLOCK = 16  # outputs
# products a matrix: OpenBLAS computes what is smaller without its threads, which would stand in the way of the backend's
SMALL = 200_000


class Band(NamedTuple):
    """Outputs `target` are `weights` (outputs, inputs) times inputs `source`."""

    target: slice
    source: slice
    weights: np.ndarray


def bilinear(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(C, H, W) float32 -> (C, *size), antialiased: A X B^T with A (h, H) and B (w, W)."""
    planes = image if image.shape[2] == size[1] else _columns(image, size[1])
    return planes if image.shape[1] == size[0] else _rows(planes, size[0])


def _columns(image: np.ndarray, after: int) -> np.ndarray:
    """(C, H, W) -> (C, H, `after`)."""
    channels, height, before = image.shape
    rows = image.reshape(-1, before)
    resized = np.empty((len(rows), after), np.float32)
    for band in bands(before, after):
        step = max(SMALL // band.weights.size, 1)
        whole = len(rows) // step * step
        for part, count in ((slice(whole), step), (slice(whole, None), len(rows) - whole)):
            if count:
                source = rows[part].reshape(-1, count, before)[..., band.source]
                np.matmul(source, band.weights.T, out=resized[part].reshape(-1, count, after)[..., band.target])
    return resized.reshape(channels, height, after)


def _rows(image: np.ndarray, after: int) -> np.ndarray:
    """(C, H, W) -> (C, `after`, W)."""
    channels, before, width = image.shape
    resized = np.empty((channels, after, width), np.float32)
    for band in bands(before, after):
        step = max(SMALL // band.weights.size, 1)
        for left in range(0, width, step):
            columns = slice(left, left + step)
            np.matmul(band.weights, image[:, band.source, columns], out=resized[:, band.target, columns])
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
