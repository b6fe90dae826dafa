"""Preprocess: ONE object owns resize, crop, channels, value range and normalisation, for train, test and predict."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from adcore.errors import ConfigError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ResizeMethod = Literal["bilinear", "nearest"]


@dataclass(frozen=True)
class Preprocess:
    """Turns a decoded image into the model's input; stored in the artifact, applied in exactly one place."""

    size: tuple[int, int] = (256, 256)  # height, width after the resize
    crop: tuple[int, int] | None = None  # centre crop after it
    mean: tuple[float, float, float] | None = None  # None: values stay as decoded
    std: tuple[float, float, float] | None = None
    resize: ResizeMethod = "bilinear"  # bilinear with antialiasing

    def __post_init__(self) -> None:
        if self.crop and (self.crop[0] > self.size[0] or self.crop[1] > self.size[1]):
            raise ConfigError(f"crop_size {self.crop} is larger than image_size {self.size}; choose a smaller crop")

    @property
    def output_size(self) -> tuple[int, int]:
        """Height and width of the model's input."""
        return self.crop or self.size

    def __call__(self, image: Tensor) -> Tensor:
        """Decoded image (3, H, W) float32 -> model input (3, h, w) float32."""
        if image.shape[-2:] != self.size:
            if self.resize == "bilinear":
                image = F.interpolate(image[None], self.size, mode="bilinear", antialias=True)[0]
            else:
                image = F.interpolate(image[None], self.size, mode="nearest-exact")[0]
        image = self._crop(image)
        if self.mean is not None and self.std is not None:
            mean, std = (torch.tensor(v, dtype=image.dtype)[:, None, None] for v in (self.mean, self.std))
            image = (image - mean) / std
        return image.contiguous()

    def mask(self, mask: Tensor) -> Tensor:
        """Decoded mask (H, W) bool -> (h, w) bool, with the same geometry, always nearest."""
        if mask.shape != self.size:
            mask = F.interpolate(mask[None, None].to(torch.uint8), self.size, mode="nearest-exact")[0, 0].bool()
        return self._crop(mask)

    def _crop(self, image: Tensor) -> Tensor:
        if self.crop is None:
            return image
        (height, width), (h, w) = self.size, self.crop
        top, left = (height - h) // 2, (width - w) // 2
        return image[..., top : top + h, left : left + w]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the artifact's header."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Preprocess:
        """The inverse of `to_dict`."""
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in data.items()})
