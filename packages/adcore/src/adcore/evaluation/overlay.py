"""Overlays: an anomaly map drawn over its photograph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from PIL import Image

from adcore.files import atomic_path

COLOURS = colormaps["inferno"](np.arange(256))[:, :3].astype(np.float32)


def colour_range(anomaly_map: np.ndarray, normal: tuple[float, float] | None) -> tuple[float, float]:
    """The raw values that are drawn without colour and in full colour.

    `normal`, of the calibration: the median and the highest value of normal images' maps. Full colour is twice as far
    from the median as the highest value of a normal image. Without a calibration the map itself gives both.
    """
    if normal is None:
        return float(np.median(anomaly_map)), float(anomaly_map.max())
    median, highest = normal
    return median, median + 2 * (highest - median)


def write_overlay(path: Path, photo: np.ndarray, anomaly_map: np.ndarray, low: float, high: float) -> None:
    """Write a PNG of the photo's own size: gray where the raw map is at `low`, full colour from `high` on.

    `photo`: (H, W) uint8; `anomaly_map`: (h, w) raw.
    """
    level = np.clip((anomaly_map - low) / max(high - low, 1e-12), 0, 1).astype(np.float32)
    size = (photo.shape[1], photo.shape[0])
    level = np.asarray(Image.fromarray(level).resize(size, Image.Resampling.BILINEAR))  # (H, W)
    index = (level * 255).round().astype(np.uint8)
    alpha = level * 0.85
    gray = photo * np.float32(0.75 / 255) * (1 - alpha)
    drawn = np.empty((*photo.shape, 3), np.uint8)
    for channel in range(3):  # one at a time: a large photograph takes a third of the memory
        drawn[..., channel] = ((gray + COLOURS[index, channel] * alpha) * 255).round()
    with atomic_path(path) as temporary:
        Image.fromarray(drawn).save(temporary)
