"""An anomaly map drawn over its photograph, pixel for pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from PIL import Image

from adcore.files import atomic_path


def write_overlay(path: Path, photo: np.ndarray, anomaly_map: np.ndarray, low: float, high: float) -> None:
    """Write a PNG of the photo's own size: gray where the raw map is at `low`, glowing towards `high`.

    `photo`: (H, W, 3) float, shown as it is within [0, 1], else stretched; `anomaly_map`: (h, w) raw.
    """
    darkest, brightest = float(photo.min()), float(photo.max())
    if darkest < 0 or brightest > 1:
        photo = (photo - darkest) / max(brightest - darkest, 1e-12)
    level = np.clip((anomaly_map - low) / max(high - low, 1e-12), 0, 1).astype(np.float32)
    size = (photo.shape[1], photo.shape[0])
    level = np.asarray(Image.fromarray(level).resize(size, Image.Resampling.BILINEAR))[..., None]
    heat = colormaps["inferno"](level[..., 0])[..., :3]
    gray = photo.mean(2, keepdims=True) * 0.75
    alpha = np.sqrt(level) * 0.85
    blended = gray * (1 - alpha) + heat * alpha
    with atomic_path(path) as temporary:
        Image.fromarray((blended * 255).round().astype(np.uint8)).save(temporary)
