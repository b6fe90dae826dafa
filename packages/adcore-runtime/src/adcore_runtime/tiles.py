"""Tiles of a large image: where they lie, and how their maps become the map of the whole image."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from adcore_runtime.errors import DataError

Size = tuple[int, int]  # height, width
Tile = tuple[slice, slice]  # rows, columns


def tiles_of(plane: Size, tile: Size, overlap: Size) -> list[Tile]:
    """Tiles of size `tile` that cover `plane`, row by row; neighbours share at least `overlap` rows and columns.

    The last tile of a row or column ends where the plane ends. Raises DataError where the plane is smaller than a tile.
    """
    if plane[0] < tile[0] or plane[1] < tile[1]:
        raise DataError(
            f"an image of {plane[1]}x{plane[0]} px is smaller than a tile of {tile[1]}x{tile[0]} px; train with a smaller "
            "tile, or with image_size set to what all images are resized to first"
        )
    rows, columns = (_spans(*sides) for sides in zip(plane, tile, overlap, strict=True))
    return [(row, column) for row in rows for column in columns]


def _spans(length: int, tile: int, overlap: int) -> list[slice]:
    starts = [*range(0, length - tile, tile - overlap), length - tile]
    return [slice(start, start + tile) for start in starts]


class Stitch:
    """The map of a whole image from the maps of its tiles; where tiles overlap, a weighted mean without a step.

    A tile's weight falls linearly to its border over the overlap, so that a border, where a network sees least of what is
    around, counts least. Memory: one map of the whole image.
    """

    def __init__(self, plane: Size, tile: Size, overlap: Size) -> None:
        self._sum = np.zeros(plane, np.float32)
        self._ramps = [_ramp(*sides) for sides in zip(tile, overlap, strict=True)]
        self._weights = [np.zeros(side, np.float32) for side in plane]  # their product is the sum of the tiles' weights
        for weights, ramp, *sides in zip(self._weights, self._ramps, plane, tile, overlap, strict=True):
            for span in _spans(*sides):
                weights[span] += ramp

    def add(self, tile: Tile, anomaly_map: np.ndarray) -> None:
        """Add the map (h, w) of one tile."""
        self._sum[tile] += anomaly_map * self._ramps[0][:, None] * self._ramps[1]

    def map(self) -> np.ndarray:
        """The map (H, W) float32, once all tiles have been added."""
        self._sum /= self._weights[0][:, None]
        self._sum /= self._weights[1]
        return self._sum


def _ramp(tile: int, overlap: int) -> np.ndarray:
    """(tile,) weights in (0, 1]."""
    from_border = np.minimum(np.arange(tile), np.arange(tile)[::-1]) + 0.5
    return np.minimum(1, from_border / max(overlap, 0.5)).astype(np.float32)


def stitched(
    plane: Size, tile: Size, overlap: Size, results: Iterator[tuple[float, np.ndarray | None]]
) -> tuple[float, np.ndarray | None]:
    """Score and map of an image from those of its tiles, in the order of `tiles_of`: the score is the highest of a tile."""
    stitch, scores, mapped = Stitch(plane, tile, overlap), [], False
    for place, (score, anomaly_map) in zip(tiles_of(plane, tile, overlap), results, strict=True):
        scores.append(score)
        if anomaly_map is not None:
            stitch.add(place, anomaly_map)
            mapped = True
    return max(scores), stitch.map() if mapped else None
