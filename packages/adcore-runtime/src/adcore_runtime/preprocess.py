"""A decoded image to a model's input, in numpy: value range, resize, padding and crop; normalisation is in the graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from adcore_runtime.errors import DataError
from adcore_runtime.geometry import Frame, centred, check_roi, frame_of, inner_size, region_of, standard_noise
from adcore_runtime.resize import bilinear, nearest
from adcore_runtime.roi import Roi
from adcore_runtime.tiles import Size, stitched, tiles_of

RESIZE_METHODS = ("bilinear", "nearest", "keep-aspect", "black-padding", "noise-padding")


@dataclass(frozen=True)
class Preprocess:
    """adcore's `Preprocess` up to the normalisation, equal to it within 1e-5."""

    size: tuple[int, int] | None  # height, width after the resize; None, with tiles: no resize
    crop: tuple[int, int] | None  # centre crop after it
    resize: str
    channels: int
    value_range: tuple[float, float] | None  # decoded values that become 0 and 1
    region: tuple[int, int, int, int] | None = None  # x, y, width, height in original pixels: all that is seen
    tile: Size | None = None  # height, width: the graph takes tiles of this size
    tile_overlap: Size = (0, 0)  # rows and columns that neighbours share
    roi: Roi | None = None  # the original pixels that count; the others are black

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Preprocess:
        """Preprocessing as a model file stores it; ValueError, KeyError or TypeError for what is not understood."""
        if stored["resize"] not in RESIZE_METHODS:
            raise ValueError(f"unknown resize method {stored['resize']!r}")
        size, tile, overlap = (_pair(stored.get(key)) for key in ("size", "tile", "tile_overlap"))
        if (size is None and tile is None) or (tile and overlap and (overlap[0] >= tile[0] or overlap[1] >= tile[1])):
            raise ValueError(f"size {size!r}, tile {tile!r}, tile_overlap {overlap!r}")
        crop, value_range, region = stored.get("crop"), stored.get("value_range"), stored.get("region")
        if region:
            x, y, columns, rows = map(int, region)
            if min(x, y) < 0 or min(columns, rows) < 1:
                raise ValueError(f"region {region!r}")
            region = x, y, columns, rows
        return cls(
            size,
            _pair(crop),
            stored["resize"],
            int(stored["channels"]),
            (float(value_range[0]), float(value_range[1])) if value_range else None,
            region or None,
            tile,
            overlap or (0, 0),
            Roi.from_dict(stored["roi"]) if stored.get("roi") else None,
        )

    @property
    def output_size(self) -> tuple[int, int]:
        """Height and width of the model's input."""
        return self.tile or self.crop or self.size

    def inputs(self, image: np.ndarray) -> list[np.ndarray]:
        """Decoded image (C, H, W) float32 -> the model's inputs (1, C, h, w): the image, or its tiles in their order."""
        return self.cut(self(image))

    def cut(self, plane: np.ndarray) -> list[np.ndarray]:
        """What `__call__` gives -> the model's inputs (1, C, h, w)."""
        if self.tile is None:
            return [plane[None]]
        return [plane[None, :, *tile] for tile in tiles_of(plane.shape[1:], self.tile, self.tile_overlap)]

    def whole(self, size: Size, results: Iterator[tuple[float, np.ndarray | None]]) -> tuple[float, np.ndarray | None]:
        """Score and map of an image of `size` (height, width) from the model's results of its `inputs`, in their order."""
        if self.tile is None:
            return next(results)
        rows, columns = region_of(self.region, *size)
        plane = self.crop or self.size or (rows.stop - rows.start, columns.stop - columns.start)
        return stitched(plane, self.tile, self.tile_overlap, results)

    def frame(self, height: int, width: int) -> Frame:
        """Where the model's input lies in an original image of `height` x `width`."""
        return frame_of(self.resize, self.size, self.crop, height, width, self.region, self.roi)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Decoded image (C, H, W) float32 -> (C, h, w) float32, with tiles the plane that they are cut from.

        DataError for another number of channels.
        """
        if len(image) != self.channels:
            raise DataError(f"an image of {len(image)} channels; this model was set up for {self.channels}")
        check_roi(self.roi, *image.shape[1:])
        rows, columns = region_of(self.region, *image.shape[1:])
        image = image[:, rows, columns]
        if self.value_range:
            low, high = self.value_range
            image = (image - np.float32(low)) / np.float32(high - low)
        if self.roi:
            image = image * self.roi.mask[rows, columns]
        inner = inner_size(self.resize, self.size, *image.shape[1:])
        if image.shape[1:] != inner:
            image = (nearest if self.resize == "nearest" else bilinear)(image, inner)
        if self.size and inner != self.size:
            canvas = np.zeros((self.channels, *self.size), np.float32)
            if self.resize == "noise-padding":
                noise = standard_noise(self.size) * np.float32(image.std(dtype=np.float64))
                canvas[:] = np.clip(noise + np.float32(image.mean(dtype=np.float64)), image.min(), image.max())
            rows, columns = centred(self.size, inner)
            canvas[:, rows, columns] = image
            image = canvas
        if self.crop:
            rows, columns = centred(self.size, self.crop)
            image = image[:, rows, columns]
        return np.ascontiguousarray(image)


def _pair(sides: Any) -> Size | None:
    """Height and width as a model file stores them."""
    return (int(sides[0]), int(sides[1])) if sides else None
