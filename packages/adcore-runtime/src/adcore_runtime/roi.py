"""A region of interest: the pixels of the original image that count, stored in a few bytes, and what of a map shows them."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Roi:
    """A mask of the original image in a form that can be stored; ValueError for one that is damaged or empty."""

    size: tuple[int, int]  # height, width of the original image
    bits: str  # its pixels, row by row, eight in a byte, compressed, in base64

    def __post_init__(self) -> None:
        _mask(self)

    @classmethod
    def of(cls, mask: np.ndarray) -> Roi:
        """The region of a mask (H, W) bool, True where the image counts."""
        packed = zlib.compress(np.packbits(mask).tobytes(), 9)
        return cls((int(mask.shape[0]), int(mask.shape[1])), base64.b64encode(packed).decode("ascii"))

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Roi:
        """The region as a model file stores it; ValueError, KeyError or TypeError for what is none."""
        height, width = map(int, stored["size"])
        return cls((height, width), stored["bits"])

    @property
    def mask(self) -> np.ndarray:
        """(H, W) bool, True where the image counts; not to be written to."""
        return _mask(self)


def pooled(mask: np.ndarray, edges: np.ndarray, axis: int) -> np.ndarray:
    """(H, W) bool in cells along `axis`, from each of `edges` (n + 1,), in pixels, to the next: True where a pixel is.

    A pixel belongs to the cell that holds its middle; a cell that holds none takes the pixel that it lies in.
    """
    last = mask.shape[axis] - 1
    bounds = np.ceil(edges - 0.5).astype(np.intp).clip(0, last + 1)
    kept = mask[(slice(None),) * axis + (slice(max(1, bounds[-1])),)]
    cells = np.logical_or.reduceat(kept, bounds[:-1].clip(max=kept.shape[axis] - 1), axis)
    middles = np.floor((edges[:-1] + edges[1:]) / 2).astype(np.intp).clip(0, last)
    empty = np.expand_dims(bounds[:-1] == bounds[1:], 1 - axis)
    return np.where(empty, mask.take(middles, axis), cells)


def cells_of(seen: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """The cells of a coarser `grid` (rows, columns) over `seen` (H, W) bool that hold a pixel that is seen: bool."""
    for axis, (side, count) in enumerate(zip(seen.shape, grid, strict=True)):
        if side != count:
            seen = pooled(seen, np.arange(count + 1) * (side / count), axis)
    return seen


@lru_cache(maxsize=4)
def _mask(roi: Roi) -> np.ndarray:
    height, width = roi.size
    if min(height, width) < 1:
        raise ValueError(f"roi of {height} x {width} px")
    count = -(-height * width // 8)
    try:
        stream = zlib.decompressobj()
        packed = stream.decompress(base64.b64decode(roi.bits, validate=True), count + 1)
    except (zlib.error, binascii.Error) as error:
        raise ValueError(f"roi: {error}") from None
    if len(packed) != count or not stream.eof:
        raise ValueError("roi: not as many pixels as it has to hold")
    mask = np.unpackbits(np.frombuffer(packed, np.uint8), count=height * width).view(bool).reshape(height, width)
    if not mask.any():
        raise ValueError("roi: no pixel of it counts")
    mask.flags.writeable = False
    return mask
