"""Where an image lies within a model's input, and the noise around it: what adcore's and this package's Preprocess share."""

from __future__ import annotations

from functools import lru_cache

import numpy as np


def inner_size(resize: str, size: tuple[int, int], height: int, width: int) -> tuple[int, int]:
    """Height and width that an image of `height` x `width` itself takes up within `size` (height, width)."""
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


@lru_cache(maxsize=2)
def standard_noise(size: tuple[int, int]) -> np.ndarray:
    """Normal noise of `size`, float32, the same for every call, version and processor (numpy's frozen legacy stream)."""
    noise = np.random.RandomState(0).standard_normal(size).astype(np.float32)
    noise.flags.writeable = False
    return noise
