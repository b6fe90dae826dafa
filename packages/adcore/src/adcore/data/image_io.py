"""Reading and writing images and masks as tensors, keeping exactly what the file says; decoding is adcore_runtime's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from adcore_runtime import image as arrays
from adcore_runtime.decode import decode, stored_size
from PIL import Image
from torch import Tensor

from adcore.data.layout import IMAGE_SUFFIXES
from adcore.errors import DataError
from adcore.files import atomic_path
from adcore.settings import max_image_pixels

__all__ = ["IMAGE_SUFFIXES", "image_from_array", "image_size", "read_image", "read_mask", "write_image"]


def read_image(path: str | Path, channels: int = 3) -> Tensor:
    """Decode an image to (`channels`, H, W) float32.

    8-bit values are divided by 255, 16-bit ones by 65535; floating-point TIFF stays as it is, unclipped. Gray becomes
    three equal channels, or stays one; colours become one channel by their luma; other numbers of channels are those of a
    TIFF. Alpha is dropped, EXIF orientation is applied. Raises DataError with the path for a file that
    is missing, empty, truncated or of another kind, and for NaN or infinite values.
    """
    return torch.from_numpy(arrays.read_image(path, channels, max_image_pixels))


def image_size(path: str | Path) -> tuple[int, int] | None:
    """Height and width of the image that `read_image` would give, from its header; None where that does not say it."""
    return stored_size(path, max_image_pixels)


def image_from_array(array: np.ndarray, channels: int = 3) -> Tensor:
    """Convert a decoded image, as a camera or another library gives it, to (`channels`, H, W) float32.

    `array` is (H, W), (H, W, 1), (H, W, 3) or (H, W, `channels`): uint8 is divided by 255, uint16 by 65535, float32 stays
    as it is; channels as in `read_image`. Raises DataError for another shape or type, and for NaN or infinite values.
    """
    return torch.from_numpy(arrays.image_from_array(array, channels))


def read_mask(path: str | Path, nonzero: bool = False) -> Tensor:
    """Decode a mask to (H, W) bool, True where anomalous; with `nonzero` where any value but 0 is in a lossless file.

    In a palette image every colour but black is anomalous. In a gray or RGB image (largest channel) it is every value
    from half of the range up, so that JPEG noise and the soft edges of a resized mask do not grow the region; but where
    a lossless file stays below half of the range, its values are class numbers (0, 1, 2, ...), and all but 0 are
    anomalous. Floating point: from 0.5 up. Raises DataError as `read_image`.
    """
    values, kind = decode(path, limit=max_image_pixels)
    if values.ndim == 3:
        values = values.max(axis=2)
    if values.dtype == bool:
        mask = ~values if kind == "ink" else values.copy()  # tifffile writes bool masks so: marked is 1, shown as black
    elif np.issubdtype(values.dtype, np.floating):
        if not np.isfinite(values).all():
            raise DataError(f"{path}: NaN or infinite values in a mask; save it as 8-bit PNG, 0 normal, 255 anomalous")
        mask = values != 0 if nonzero else values >= 0.5
    else:
        half = np.iinfo(values.dtype).max // 2 + 1
        class_numbers = kind == "exact" and (nonzero or values.max() < half)
        mask = values > 0 if kind == "palette" or class_numbers else values >= half
    return torch.from_numpy(np.ascontiguousarray(mask))


def write_image(path: str | Path, image: Tensor) -> None:
    """Write (3, H, W) or (H, W): float TIFF keeps every value, 8-bit PNG takes bool or values in [0, 1], rounded.

    The suffix decides; the file appears complete or not at all. Raises DataError for another suffix or range.
    """
    path = Path(path)
    values = image.detach().cpu().numpy()
    values = values.transpose(1, 2, 0) if values.ndim == 3 else values
    if path.suffix.lower() in (".tif", ".tiff"):
        import tifffile

        with atomic_path(path) as temporary:
            tifffile.imwrite(
                temporary, values.astype(np.float32), photometric="rgb" if values.ndim == 3 else "minisblack"
            )
        return
    if path.suffix.lower() != ".png":
        raise DataError(f"{path}: images are written as .png (8 bits) or .tiff (float32)")
    values = values.astype(np.float32)
    if not (values.min() >= 0 and values.max() <= 1):  # also refuses NaN
        raise DataError(
            f"{path}: PNG holds values from 0 to 1, these go from {values.min():g} to {values.max():g}; use .tiff"
        )
    with atomic_path(path) as temporary:
        Image.fromarray((values * 255).round().astype(np.uint8)).save(temporary)
