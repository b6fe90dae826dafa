"""Preprocess: one object owns value range, resize, crop, channels and normalisation, for train, test and predict."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from adcore_runtime.geometry import Frame, centred, check_roi, frame_of, inner_size, region_of, standard_noise
from adcore_runtime.roi import Roi
from adcore_runtime.tiles import Tile, tiles_of
from pydantic import ConfigDict, Field
from torch import Tensor

from adcore.errors import ConfigError, DataError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ResizeMethod = Literal["bilinear", "nearest", "keep-aspect", "black-padding", "noise-padding"]
RESIZE_METHODS: tuple[str, ...] = get_args(ResizeMethod)
Deviation = Annotated[float, Field(gt=0)]
Side = Annotated[int, Field(ge=1, le=2**16)]
EACH = "each"  # every image has a region of interest of its own, which is given with it
Edge = Annotated[int, Field(ge=0, le=2**16)]


@dataclass(frozen=True)
class Preprocess:
    """Turns a decoded image into the model's input; stored in the artifact, applied in exactly one place."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)  # in a file's header

    size: tuple[Side, Side] | None = (256, 256)  # height, width after the resize; None, with tiles: no resize
    crop: tuple[Side, Side] | None = None  # centre crop after it
    mean: tuple[float, ...] | None = None  # one value a channel; None: values stay as decoded
    std: tuple[Deviation, ...] | None = None
    # bilinear (antialiased) and nearest stretch to `size`; keep-aspect scales until the image fits, the rest is 0;
    # black- and noise-padding centre the image unscaled (scaled down where it is larger) on 0 or on seeded noise
    resize: ResizeMethod = "bilinear"
    channels: Annotated[int, Field(ge=1, le=1024)] = 3  # of the model's input
    value_range: tuple[float, float] | None = None  # decoded values that become 0 and 1; None: values stay as decoded
    region: tuple[Edge, Edge, Side, Side] | None = None  # x, y, width, height in original pixels: all that is seen
    tile: tuple[Side, Side] | None = None  # height, width: the model sees the image in tiles of this size
    tile_overlap: tuple[Edge, Edge] = (0, 0)  # rows and columns that neighbours share
    # the original pixels that count, of all images or of each; the others are black
    roi: Roi | Literal["each"] | None = None

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values is not None and len(values) != self.channels:
                raise ConfigError(
                    f"normalization has {len(values)} channels, the images have {self.channels}; use none"
                )
        if self.value_range and not self.value_range[0] < self.value_range[1]:
            raise ConfigError(f"value_range {self.value_range}: the first value must be below the second")
        if self.size is None and (self.crop or not self.tile):
            raise ConfigError("crop_size cuts a resized image; give image_size as well, or leave it out")
        if self.crop and (self.crop[0] > self.size[0] or self.crop[1] > self.size[1]):
            raise ConfigError(f"crop_size {self.crop} is larger than image_size {self.size}; choose a smaller crop")
        if self.tile and any(part >= side for part, side in zip(self.tile_overlap, self.tile, strict=True)):
            raise ConfigError(f"tile_overlap {self.tile_overlap} must be smaller than the tile {self.tile}")
        whole = self.crop or self.size
        if self.tile and whole and (self.tile[0] > whole[0] or self.tile[1] > whole[1]):
            key = "crop_size" if self.crop else "image_size"
            raise ConfigError(f"tile {self.tile} is larger than {key} {whole}; choose a smaller tile")

    @property
    def output_size(self) -> tuple[int, int]:
        """Height and width of the model's input."""
        return self.tile or self.crop or self.size

    def plane_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the map of an original image of `height` x `width`."""
        rows, columns = region_of(self.region, height, width)
        return self.crop or self.size or (rows.stop - rows.start, columns.stop - columns.start)

    def tiles(self, plane: tuple[int, int]) -> list[Tile]:
        """The tiles of a plane of this height and width; DataError where it is smaller than one."""
        return tiles_of(plane, self.tile, self.tile_overlap)

    def frame(self, height: int, width: int) -> Frame:
        """Where the model's input lies in an original image of `height` x `width`."""
        return frame_of(self.resize, self.size, self.crop, height, width, self.region, self._one_roi())

    def of(self, roi: Roi | Literal["each"] | None) -> Preprocess:
        """The same with another region of interest; as it is where there is none."""
        return self if roi is None else replace(self, roi=roi)

    def seen(self, height: int, width: int) -> np.ndarray | None:
        """The pixels of the map of an image of `height` x `width` that count: (h, w) bool; None where all do."""
        return self.frame(height, width).seen(self.plane_size(height, width))

    @property
    def common_seen(self) -> np.ndarray | None:
        """`seen` of all images, where one region of interest is that of all of them."""
        return self.seen(*self.roi.size) if isinstance(self.roi, Roi) else None

    def _one_roi(self) -> Roi | None:
        """DataError where each image has its own, and this one came without."""
        if self.roi == EACH:
            raise DataError(
                "this model was trained with a region of interest for each image; give this one's, with --roi on the "
                "command line"
            )
        return self.roi

    def __call__(self, image: Tensor) -> Tensor:
        """Decoded image (C, H, W) float32 -> model input (C, h, w) float32; DataError for another number of channels.

        With tiles: the plane that they are cut from.
        """
        return self.normalized(self.plane(image)).contiguous()

    def plane(self, image: Tensor) -> Tensor:
        """All but the normalisation, which a large image gets tile by tile; a view of `image` where nothing is changed."""
        if image.shape[0] != self.channels:
            raise DataError(f"an image of {image.shape[0]} channels; this model was set up for {self.channels}")
        roi = self._one_roi()
        check_roi(roi, image.shape[-2], image.shape[-1])
        image = self._seen(image)
        if self.value_range:
            low, high = self.value_range
            image = (image - low) / (high - low)
        if roi:
            image = image.masked_fill(~self._seen(torch.tensor(roi.mask)), 0)
        inner = self._inner(image.shape[-2], image.shape[-1])
        if image.shape[-2:] != inner:
            if self.resize == "nearest":
                image = F.interpolate(image[None], inner, mode="nearest-exact")[0]
            else:
                image = _bilinear(image, inner)
        if self.size and inner != self.size:
            canvas = (
                _noise(image, self.size)
                if self.resize == "noise-padding"
                else image.new_zeros(self.channels, *self.size)
            )
            image = self._pasted(canvas, image)
        return self._crop(image)

    def normalized(self, image: Tensor) -> Tensor:
        """(C, h, w) with mean 0 and deviation 1, by the mean and std of each channel; as it is where there are none."""
        if self.mean is None or self.std is None:
            return image
        mean, std = (torch.tensor(v, dtype=image.dtype)[:, None, None] for v in (self.mean, self.std))
        return (image - mean) / std

    def without_normalization(self, inputs: Tensor) -> np.ndarray:
        """A model's input (C, h, w) as it was before the normalisation; the plane that tiles are cut from never had one."""
        values = inputs.cpu().numpy()  # small operations of numpy wait for no other thread
        if self.tile or self.mean is None or self.std is None:
            return values
        mean, std = (np.asarray(v, np.float32)[:, None, None] for v in (self.mean, self.std))
        return values * std + mean

    def mask(self, mask: Tensor) -> Tensor:
        """Decoded mask (H, W) bool -> (h, w) bool, with the same geometry, always with nearest-neighbour resizing."""
        mask = self._seen(mask)
        inner = self._inner(*mask.shape)
        if mask.shape != inner:
            mask = F.interpolate(mask[None, None].to(torch.uint8), inner, mode="nearest-exact")[0, 0].bool()
        if self.size and inner != self.size:
            mask = self._pasted(mask.new_zeros(self.size), mask)
        return self._crop(mask)

    def _seen(self, image: Tensor) -> Tensor:
        """The region of (..., H, W); DataError where the image does not hold it."""
        if self.region is None:
            return image
        rows, columns = region_of(self.region, image.shape[-2], image.shape[-1])
        return image[..., rows, columns]

    def _inner(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that the image itself takes up within `size`."""
        return inner_size(self.resize, self.size, height, width)

    def _pasted(self, canvas: Tensor, image: Tensor) -> Tensor:
        """`image` in the middle of `canvas`."""
        rows, columns = centred(self.size, (image.shape[-2], image.shape[-1]))
        canvas[..., rows, columns] = image
        return canvas

    def _crop(self, image: Tensor) -> Tensor:
        if self.crop is None:
            return image
        rows, columns = centred(self.size, self.crop)
        return image[..., rows, columns]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the artifact's header."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Preprocess:
        """The inverse of `to_dict`."""
        data = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
        roi = data.get("roi")
        return cls(**data | {"roi": Roi.from_dict(roi) if isinstance(roi, dict) else roi})


def _bilinear(image: Tensor, size: tuple[int, int]) -> Tensor:
    """(C, H, W) -> (C, *size), antialiased."""
    if size[1] > 1 or image.shape[-2] == size[0]:
        return F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
    column = F.interpolate(image[None], (image.shape[-2], 1), mode="bilinear", antialias=True)[0]
    return _bilinear(column.expand(-1, -1, 2).contiguous(), (size[0], 2))[
        ..., :1
    ]  # torch is wrong for rows of one value


def _noise(image: Tensor, size: tuple[int, int]) -> Tensor:
    """(C, *size) gray noise around the image's mean with its deviation, within its range; the same for every call."""
    noise = torch.from_numpy(standard_noise(size).copy())
    noise = noise * image.std(correction=0) + image.mean()
    return noise.clamp(image.min(), image.max()).to(image.dtype).expand(image.shape[0], -1, -1).clone()
