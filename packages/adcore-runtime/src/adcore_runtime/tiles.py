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

    Next to another tile, the outer quarter of the overlap counts nothing, since a network sees least of what is around there;
    over the inner half a tile's weight grows from 0 to 1. Memory: one map of the whole image.
    """

    def __init__(self, plane: Size, tile: Size, overlap: Size) -> None:
        self._sum = np.zeros(plane, np.float32)
        self._plane, self._overlap = plane, overlap
        self._weights = [np.zeros(side, np.float32) for side in plane]  # their product is the sum of the tiles' weights
        for weights, *sides in zip(self._weights, plane, tile, overlap, strict=True):
            for span in _spans(*sides):
                weights[span] += _ramp(span, sides[0], sides[2])

    def add(self, tile: Tile, anomaly_map: np.ndarray) -> None:
        """Add the map (h, w) of one tile."""
        rows, columns = (_ramp(*sides) for sides in zip(tile, self._plane, self._overlap, strict=True))
        self._sum[tile] += anomaly_map * rows[:, None] * columns

    def map(self) -> np.ndarray:
        """The map (H, W) float32, once all tiles have been added."""
        self._sum /= self._weights[0][:, None]
        self._sum /= self._weights[1]
        return self._sum


def _ramp(span: slice, length: int, overlap: int) -> np.ndarray:
    """Weights in [0, 1] of the rows or columns `span` of `length`: 1 up to the image's own border."""
    place = np.arange(span.start, span.stop) + 0.5
    before = place - span.start if span.start > 0 else np.inf
    after = span.stop - place if span.stop < length else np.inf
    inside = np.minimum(before, after) - overlap / 4
    weights = np.clip(inside / max(overlap / 2, 0.5), 0, 1)
    return np.broadcast_to(weights, place.shape).astype(np.float32)


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
