"""A decoded image to a model's input, in numpy: value range, resize, padding and crop; normalisation is in the graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from adcore_runtime.errors import DataError
from adcore_runtime.geometry import Frame, centred, frame_of, inner_size, region_of, standard_noise
from adcore_runtime.resize import bilinear, nearest

RESIZE_METHODS = ("bilinear", "nearest", "keep-aspect", "black-padding", "noise-padding")


@dataclass(frozen=True)
class Preprocess:
    """adcore's `Preprocess` up to the normalisation, equal to it within 1e-5."""

    size: tuple[int, int]  # height, width after the resize
    crop: tuple[int, int] | None  # centre crop after it
    resize: str
    channels: int
    value_range: tuple[float, float] | None  # decoded values that become 0 and 1
    region: tuple[int, int, int, int] | None = None  # x, y, width, height in original pixels: all that is seen

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Preprocess:
        """Preprocessing as a model file stores it; ValueError, KeyError or TypeError for what is not understood."""
        if stored["resize"] not in RESIZE_METHODS:
            raise ValueError(f"unknown resize method {stored['resize']!r}")
        height, width = map(int, stored["size"])
        crop, value_range, region = stored.get("crop"), stored.get("value_range"), stored.get("region")
        if region:
            x, y, columns, rows = map(int, region)
            if min(x, y) < 0 or min(columns, rows) < 1:
                raise ValueError(f"region {region!r}")
            region = x, y, columns, rows
        return cls(
            (height, width),
            (int(crop[0]), int(crop[1])) if crop else None,
            stored["resize"],
            int(stored["channels"]),
            (float(value_range[0]), float(value_range[1])) if value_range else None,
            region or None,
        )

    @property
    def output_size(self) -> tuple[int, int]:
        """Height and width of the model's input."""
        return self.crop or self.size

    def frame(self, height: int, width: int) -> Frame:
        """Where the model's input lies in an original image of `height` x `width`."""
        return frame_of(self.resize, self.size, self.crop, height, width, self.region)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Decoded image (C, H, W) float32 -> (C, h, w) float32; DataError for another number of channels."""
        if len(image) != self.channels:
            raise DataError(f"an image of {len(image)} channels; this model was set up for {self.channels}")
        rows, columns = region_of(self.region, *image.shape[1:])
        image = image[:, rows, columns]
        if self.value_range:
            low, high = self.value_range
            image = (image - np.float32(low)) / np.float32(high - low)
        inner = inner_size(self.resize, self.size, *image.shape[1:])
        if image.shape[1:] != inner:
            image = (nearest if self.resize == "nearest" else bilinear)(image, inner)
        if inner != self.size:
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
