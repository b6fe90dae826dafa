"""Decoded pixels, and what every image format shares: limits before memory is taken, orientation, alpha."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from adcore_runtime.errors import DataError
from adcore_runtime.limits import LOWEST_PIXEL_LIMIT, Limit

BYTES_A_PIXEL = 6  # RGB of 16 bits: a deeper image may have as many bytes, so fewer pixels
RETRY = "copy it again from its source, or leave such files out with --skip-bad"


class Pixels(NamedTuple):
    """A decoded file, upright and without alpha."""

    values: np.ndarray  # (H, W) or (H, W, C): bool, uint8, uint16 or floating point
    kind: str  # "exact", "lossy" (JPEG, WebP), "palette" (values are the colours) or "ink" (one bit, 1 is black)


def check_size(path: Path, width: int, height: int, limit: Limit, bytes_a_pixel: int = 1) -> None:
    """Raise DataError where a file's header asks for more than `limit` allows, or for nothing."""
    if width < 1 or height < 1:
        raise DataError(f"{path}: an image of {width} x {height} px; {RETRY}")
    if width * height * max(bytes_a_pixel / BYTES_A_PIXEL, 1) <= LOWEST_PIXEL_LIMIT:  # no need to look settings up
        return
    most = limit()
    if width * height > most:
        excess = f"{width} x {height} px are more than max_image_pixels = {most}"
    elif width * height * bytes_a_pixel > BYTES_A_PIXEL * most:
        excess = (
            f"{width} x {height} px of {bytes_a_pixel} bytes are more than {BYTES_A_PIXEL} bytes "
            f"for each of max_image_pixels = {most}"
        )
    else:
        return
    raise DataError(
        f"{path}: {excess}; cut it into tiles, or raise max_image_pixels (environment variable ADCORE_MAX_IMAGE_PIXELS)"
    )


def without_alpha(values: np.ndarray, path: Path, channels: int = 3) -> np.ndarray:
    """(H, W) or (H, W, C) to (H, W) or (H, W, 3); as it is where C is `channels`."""
    if values.ndim == 2 or (values.ndim == 3 and values.shape[2] == channels):
        return values
    if values.ndim != 3 or values.shape[2] > 4:
        raise DataError(f"{path}: pixels of shape {values.shape} are not supported; save gray, RGB or RGBA")
    return values[..., :3] if values.shape[2] >= 3 else values[..., 0]


def upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """Undo the camera's rotation (EXIF orientation 1 to 8) with views, never copies."""
    if orientation in (5, 6, 7, 8):  # rows and columns are exchanged
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values


def out_of_memory(path: Path) -> DataError:
    """The error for an image that the memory has no room for."""
    return DataError(
        f"{path}: not enough memory to decode it (a file of {path.stat().st_size} bytes); cut it into tiles, lower "
        "max_image_pixels to refuse such files early, or leave it out with --skip-bad"
    )
