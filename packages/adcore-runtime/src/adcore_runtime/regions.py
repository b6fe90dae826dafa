"""Regions of an anomaly map: connected pixels at or above a threshold, with box, area, peak and outline in original pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from adcore_runtime.components import Runs, components, outline, runs_of
from adcore_runtime.errors import ConfigError, DataError
from adcore_runtime.geometry import Frame


@dataclass(frozen=True)
class Region:
    """One defect as the map shows it; x to the right and y down, in pixels of the original image."""

    x: int  # the box's left edge
    y: int  # its upper edge
    width: int
    height: int
    area: float  # in original pixels
    peak: float  # the highest raw value of the map
    polygon: list[tuple[float, float]]  # (x, y) of the outer outline, clockwise; holes are not drawn

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as `--json` has it."""
        return asdict(self)


@dataclass(frozen=True)
class RegionRule:
    """What counts as a region."""

    pixel_threshold: float  # on the raw map
    min_area: float = 0.0  # in original pixels

    @classmethod
    def chosen(cls, pixel_threshold: float | None, min_area: float, calibrated: float | None) -> RegionRule:
        """A rule from what the user gave; without a pixel threshold, the `calibrated` one.

        ConfigError for a number that is not valid, or where there is neither threshold.
        """
        if not (math.isfinite(min_area) and min_area >= 0):
            raise ConfigError(f"--min-area is a number of original pixels from 0 on, not {min_area}")
        if pixel_threshold is None:
            if calibrated is None:
                raise ConfigError(
                    "this model has no calibrated maps to take a pixel threshold from; give --pixel-threshold"
                )
            pixel_threshold = calibrated
        if not math.isfinite(pixel_threshold):
            raise ConfigError(f"--pixel-threshold is a finite number, not {pixel_threshold}")
        return cls(pixel_threshold, min_area)

    def find(self, anomaly_map: np.ndarray | None, frame: Frame) -> list[Region]:
        """The regions of a raw map (h, w), highest peak first; pixels that touch at a corner belong together.

        `frame` says where the map lies in the image; what is padding or does not count is left out. DataError
        without a map.
        """
        if anomaly_map is None:
            raise DataError("this model gives no anomaly map, so there are no regions; leave --regions out")
        inside = frame.inside(anomaly_map.shape)
        values = anomaly_map[inside]
        mask, seen = values >= self.pixel_threshold, frame.seen(anomaly_map.shape)
        if seen is not None:
            mask &= seen[inside]
        if not mask.any():
            return []
        cell = frame.row_pixels * frame.column_pixels
        runs = runs_of(mask)
        label = components(runs)  # (runs,), from 0
        area = np.bincount(label, runs.stop - runs.start) * cell
        first = np.cumsum(runs.stop - runs.start) - (runs.stop - runs.start)  # of each run's pixels among all
        peak = np.full(len(area), -np.inf, np.float32)
        np.maximum.at(peak, label, np.maximum.reduceat(values[mask], first))
        kept = np.flatnonzero(area >= self.min_area)
        order = kept[np.argsort(-peak[kept], kind="stable")]
        shift = inside[0].start, inside[1].start
        return [
            _region(Runs(*(column[label == one] for column in runs)), shift, frame, float(area[one]), float(peak[one]))
            for one in order
        ]


def _region(runs: Runs, shift: tuple[int, int], frame: Frame, area: float, peak: float) -> Region:
    """`runs` of one region, counted from row and column `shift` of the map."""
    top, left = int(runs.row.min()), int(runs.start.min())
    mask = np.zeros((int(runs.row.max()) + 1 - top, int(runs.stop.max()) - left), bool)
    for row, start, stop in zip(*runs, strict=True):
        mask[row - top, start - left : stop - left] = True
    corners = outline(mask) + np.array([top + shift[0], left + shift[1]])  # (corners, 2) row, column
    y, x = frame.y(corners[:, 0]), frame.x(corners[:, 1])
    polygon = list(zip(x.round(2).tolist(), y.round(2).tolist(), strict=True))
    left, top = math.floor(x.min() + 1e-6), math.floor(y.min() + 1e-6)  # rounding must not add a pixel
    right, bottom = math.ceil(x.max() - 1e-6), math.ceil(y.max() - 1e-6)
    return Region(left, top, right - left, bottom - top, round(area, 2), peak, polygon)


def box_of(region: Mapping[str, Any], margin: float, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of a region's box in an image of `height` x `width`, `margin` of each side wider, at least 8 px."""
    pad_y, pad_x = (max(8, round(margin * region[side])) for side in ("height", "width"))
    return (
        slice(max(0, region["y"] - pad_y), min(height, region["y"] + region["height"] + pad_y)),
        slice(max(0, region["x"] - pad_x), min(width, region["x"] + region["width"] + pad_x)),
    )
