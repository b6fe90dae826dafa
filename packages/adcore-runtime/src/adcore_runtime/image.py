"""Images as float32 arrays, with exactly the values that the file or the camera gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from adcore_runtime.decode import decode
from adcore_runtime.errors import DataError
from adcore_runtime.limits import Limit, pixel_limit
from adcore_runtime.pixels import out_of_memory

LUMA = np.array([0.299, 0.587, 0.114], np.float32)[:, None, None]  # ITU-R BT.601: gray from red, green, blue


def read_image(path: str | Path, channels: int = 3, limit: Limit = pixel_limit) -> np.ndarray:
    """Decode an image to (`channels`, H, W) float32.

    8-bit values are divided by 255, 16-bit ones by 65535; floating-point TIFF stays as it is, unclipped. Gray becomes
    three equal channels, or stays one; colours become one channel by their luma; other numbers of channels are those of a
    TIFF. Alpha is dropped, EXIF orientation is applied. Raises DataError with the path for a file that
    is missing, empty, truncated or of another kind, for NaN or infinite values, and for more than `limit()` pixels.
    """
    advice = "replace them, or leave it out with --skip-bad"
    try:
        return to_planes(decode(path, channels, limit).values, str(path), advice, channels)
    except MemoryError:
        raise out_of_memory(Path(path)) from None


def image_from_array(array: np.ndarray, channels: int = 3) -> np.ndarray:
    """Convert a decoded image, as a camera or another library gives it, to (`channels`, H, W) float32.

    `array` is (H, W), (H, W, 1), (H, W, 3) or (H, W, `channels`): uint8 is divided by 255, uint16 by 65535, float32 stays
    as it is; channels as in `read_image`. Raises DataError for another shape or type, and for NaN or infinite values.
    """
    gray = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    if (
        array.dtype.type not in (np.uint8, np.uint16, np.float32)
        or not array.size
        or not (gray.ndim == 2 or (gray.ndim == 3 and gray.shape[2] in (3, channels)))
    ):
        raise DataError(
            f"an array of shape {array.shape} and type {array.dtype} is no image; "
            "give (H, W), (H, W, 1) or (H, W, 3) of uint8, uint16 or float32"
        )
    return to_planes(gray, "the array", "replace them", channels)


def to_planes(values: np.ndarray, name: str, advice: str, channels: int) -> np.ndarray:
    """(H, W) or (H, W, C) of bool, an unsigned integer or a floating-point type to (`channels`, H, W) float32."""
    planes = values[None] if values.ndim == 2 else values.transpose(2, 0, 1)  # (C, H, W)
    if len(planes) != channels and (len(planes), channels) not in ((1, 3), (3, 1)):
        raise DataError(f"{name}: {len(planes)} channels, where the model takes {channels}; set channels={len(planes)}")
    image = np.empty((max(channels, len(planes)), *planes.shape[1:]), np.float32)
    target = image[: len(planes)]
    if np.issubdtype(values.dtype, np.integer):
        np.divide(planes, np.float32(np.iinfo(values.dtype).max), out=target)  # one pass: convert, scale, reorder
    else:
        with np.errstate(over="ignore"):  # float64 beyond float32 becomes inf, and is reported
            target[...] = planes
        if not np.isfinite(target).all():
            count = int((~np.isfinite(target)).sum())
            raise DataError(f"{name}: {count} NaN or infinite values; {advice}")
    if len(planes) < channels:
        image[1:] = image[0]
    elif channels < len(planes):
        image = (LUMA * image).sum(0, keepdims=True)
    return image


def gray_photo(image: np.ndarray) -> np.ndarray:
    """Decoded image (C, H, W) -> (H, W) uint8 to look at; values beyond [0, 1] are stretched to it."""
    darkest, brightest = float(image.min()), float(image.max())
    gray = image.mean(0)
    gray.clip(darkest, brightest, out=gray)  # a rounded mean may lie beyond; in place, since an image may be large
    if darkest < 0 or brightest > 1:
        gray -= darkest
        gray /= max(brightest - darkest, 1e-12)
    gray *= 255
    return gray.round(out=gray).astype(np.uint8)
