"""Where an image lies within a model's input, and the noise around it: what adcore's and this package's Preprocess share."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from adcore_runtime.errors import DataError
from adcore_runtime.roi import Roi, pooled

STRIP = 1 << 20  # pixels that are enlarged at a time


def inner_size(resize: str, size: tuple[int, int] | None, height: int, width: int) -> tuple[int, int]:
    """Height and width that an image of `height` x `width` itself takes up within `size`; without a size its own."""
    if size is None:
        return height, width
    if resize in ("bilinear", "nearest"):
        return size
    scale = min(size[0] / height, size[1] / width)
    if resize != "keep-aspect":
        scale = min(scale, 1.0)
    return max(1, round(height * scale)), max(1, round(width * scale))


def centred(outer: tuple[int, int], inner: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of `inner` (height, width) in the middle of `outer`."""
    top, left = (outer[0] - inner[0]) // 2, (outer[1] - inner[1]) // 2
    return slice(top, top + inner[0]), slice(left, left + inner[1])


def region_of(region: tuple[int, int, int, int] | None, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of `region` (x, y, width, height) in an image of `height` x `width`; without one the whole image.

    Raises DataError where the image does not hold the whole region.
    """
    if region is None:
        return slice(0, height), slice(0, width)
    x, y, columns, rows = region
    if y + rows > height or x + columns > width:
        raise DataError(
            f"region {x},{y},{columns},{rows} (x,y,width,height) reaches beyond the image of {width}x{height} px; this "
            "model takes images that hold the whole region"
        )
    return slice(y, y + rows), slice(x, x + columns)


class Frame(NamedTuple):
    """Where a model's input, and so its map, lies in the original image; positions are edges, 0 the upper or left one.

    "The image" is its fixed region where the model has one.
    """

    top: int  # the row of the map at which the image begins; negative where a crop cut it
    left: int
    rows: int  # of the map that the whole image takes up
    columns: int
    row_pixels: float  # original pixels in the height of one row of the map
    column_pixels: float
    first_row: int = 0  # of the original, at which the fixed region begins
    first_column: int = 0
    roi: Roi | None = None  # the pixels of the original that count; None: all

    def y(self, row: Any) -> Any:
        """Original y of a row's upper edge."""
        return (row - self.top) * self.row_pixels + self.first_row

    def x(self, column: Any) -> Any:
        """Original x of a column's left edge."""
        return (column - self.left) * self.column_pixels + self.first_column

    def shown(self, shape: tuple[int, ...]) -> tuple[slice, slice]:
        """Rows and columns of the original whose middles lie in a map of `shape`: all of them, unless a crop cut some."""
        rows, columns = self.inside(shape)
        return (
            slice(_first(self.y(rows.start)), _first(self.y(rows.stop))),
            slice(_first(self.x(columns.start)), _first(self.x(columns.stop))),
        )

    def inside(self, shape: tuple[int, ...]) -> tuple[slice, slice]:
        """Rows and columns of a map of `shape` that show the image, not its padding."""
        return (
            slice(max(0, self.top), min(shape[0], self.top + self.rows)),
            slice(max(0, self.left), min(shape[1], self.left + self.columns)),
        )

    def seen(self, shape: tuple[int, ...]) -> np.ndarray | None:
        """The pixels of a map of `shape` that show a pixel of the region of interest: (h, w) bool; None without one.

        DataError where a crop leaves none.
        """
        return None if self.roi is None else _seen(self, shape)


@lru_cache(maxsize=4)
def _seen(frame: Frame, shape: tuple[int, ...]) -> np.ndarray:
    inside, mask = frame.inside(shape), frame.roi.mask
    rows, columns = (np.arange(part.start, part.stop + 1) for part in inside)
    seen = np.zeros(shape, bool)
    seen[inside] = pooled(pooled(mask, frame.y(rows), 0), frame.x(columns), 1)
    if not seen.any():
        raise DataError("the crop or fixed region leaves nothing of the region of interest; choose others")
    seen.flags.writeable = False
    return seen


def enlarged(anomaly_map: np.ndarray, frame: Frame, rows: slice, columns: slice) -> np.ndarray:
    """The map (h, w) at the middles of the original's pixels in `rows` and `columns`, bilinear: (R, C) float32.

    Beyond the middles of the image's outer pixels in the map, the outer values go on.
    """
    values, inside = anomaly_map, frame.inside(anomaly_map.shape)
    begins = (frame.top, frame.first_row), (frame.left, frame.first_column)
    sides = zip((rows, columns), inside, begins, (frame.row_pixels, frame.column_pixels), strict=True)
    for axis, (part, kept, (first, origin), pixels) in enumerate(sides):
        place = (np.arange(part.start, part.stop) - origin + 0.5) / pixels + first - 0.5
        place = place.clip(kept.start, kept.stop - 1)
        before = np.floor(place).astype(np.intp)
        after = np.minimum(before + 1, kept.stop - 1)
        share = np.expand_dims((place - before).astype(np.float32), 1 - axis)
        low, high = values.take(before, axis), values.take(after, axis)
        values = low + (high - low) * share
    return values


def full_size(anomaly_map: np.ndarray, frame: Frame, height: int, width: int) -> np.ndarray:
    """The map (h, w) in the size of its original: (height, width) float32.

    NaN where a crop or a fixed region let nothing be seen, and outside of a region of interest.
    """
    whole = np.full((height, width), np.nan, np.float32)
    rows, columns = frame.shown(anomaly_map.shape)
    step = max(1, STRIP // width)  # a large image takes little more memory than its map
    for start in range(rows.start, rows.stop, step):
        part = slice(start, min(start + step, rows.stop))
        whole[part, columns] = enlarged(anomaly_map, frame, part, columns)
    if frame.roi:
        whole[~frame.roi.mask] = np.nan
    return whole


def _first(edge: float) -> int:
    """The first pixel whose middle is not before `edge`."""
    return math.ceil(edge - 0.5)


def frame_of(
    resize: str,
    size: tuple[int, int] | None,
    crop: tuple[int, int] | None,
    height: int,
    width: int,
    region: tuple[int, int, int, int] | None = None,
    roi: Roi | None = None,
) -> Frame:
    """The frame of an image of `height` x `width`: `region` of it, resized to `size`, cropped to `crop` (height, width).

    Without a size it is not resized. Raises DataError where `roi`, the pixels that count, is of another image's size.
    """
    check_roi(roi, height, width)
    part = region_of(region, height, width)
    height, width = (side.stop - side.start for side in part)
    inner = inner_size(resize, size, height, width)
    size = size or inner
    padded = centred(size, inner)
    cut = centred(size, crop or size)
    top, left = (padding.start - cutting.start for padding, cutting in zip(padded, cut, strict=True))
    return Frame(top, left, *inner, height / inner[0], width / inner[1], part[0].start, part[1].start, roi)


def check_roi(roi: Roi | None, height: int, width: int) -> None:
    """DataError unless the region of interest, where there is one, is of an image of `height` x `width`."""
    if roi and roi.size != (height, width):
        raise DataError(
            f"the region of interest is of images of {roi.size[1]}x{roi.size[0]} px, this one has {width}x{height}; give "
            "images of that size, or a region of interest for each image"
        )


@lru_cache(maxsize=2)
def standard_noise(size: tuple[int, int]) -> np.ndarray:
    """Normal noise of `size`, float32, the same for every call, version and processor (numpy's frozen legacy stream)."""
    noise = np.random.RandomState(0).standard_normal(size).astype(np.float32)
    noise.flags.writeable = False
    return noise
