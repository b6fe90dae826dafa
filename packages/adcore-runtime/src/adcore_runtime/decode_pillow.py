"""PNG, JPEG, BMP and WebP with Pillow, both halves of a 16-bit PNG, and what of TIFF only Pillow has the codec for."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import IO

import numpy as np
from PIL.BmpImagePlugin import BmpImageFile
from PIL.Image import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import jpeg_factory
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from adcore_runtime.errors import DataError
from adcore_runtime.limits import Limit
from adcore_runtime.pixels import RETRY, Pixels, check_size, upright, without_alpha

FORMATS = "PNG, JPEG, TIFF, BMP, WEBP"
READERS = (  # Image.open would compare with Pillow's global limit, and warn; the limit here is max_image_pixels
    (b"\x89PNG\r\n\x1a\n", PngImageFile),
    (b"\xff\xd8\xff", jpeg_factory),
    (b"BM", BmpImageFile),
    (b"RIFF", WebPImageFile),
    ((b"II", b"MM"), TiffImageFile),
)
ORIENTATION = 0x0112  # the EXIF and TIFF tag
TURNED = 5  # from this orientation on, rows are columns


def decode_pillow(file: IO[bytes], path: Path, head: bytes, limit: Limit) -> Pixels:
    """Decode a file that begins with `head`; DataError for what is not a picture of a known range of values."""
    with _open(file, path, head, limit) as image:
        if image.format in ("PNG", "WEBP") and getattr(image, "n_frames", 1) > 1:
            raise DataError(f"{path}: an animation of {image.n_frames} frames; save each frame as an image of its own")
        image.load()  # turns a TIFF upright by itself, and then has no orientation any more
        orientation = image.getexif().get(ORIENTATION, 1)
        kind = "lossy" if image.format in ("JPEG", "MPO", "WEBP") else "exact"
        values, kind = _values(image, path, kind)
    return Pixels(upright(without_alpha(values, path), orientation), kind)


def header_size(file: IO[bytes], path: Path, head: bytes, limit: Limit) -> tuple[int, int]:
    """Height and width of the decoded image in a file that begins with `head`, from its header; errors as `decode_pillow`."""
    with _open(file, path, head, limit) as image:
        width, height = image.size
        turned = image.getexif().get(ORIENTATION, 1) >= TURNED
    return (width, height) if turned else (height, width)


def _open(file: IO[bytes], path: Path, head: bytes, limit: Limit) -> ImageFile:
    """The file's reader, which has read its header and taken no memory for pixels."""
    reader = next((reader for magic, reader in READERS if head.startswith(magic)), None)
    file.seek(0)
    try:
        image = reader(file) if reader else None
    except SyntaxError:  # Pillow's word for a header that it does not understand
        image = None
    if image is None:
        raise DataError(f"{path}: not a {FORMATS} image, or its header is damaged; {RETRY}")
    check_size(path, *image.size, limit)
    return image


def _values(image: Image, path: Path, kind: str) -> tuple[np.ndarray, str]:
    if image.mode in ("P", "PA"):
        image.info.pop("transparency", None)
        return np.asarray(image.convert("RGB")), "palette"
    if image.mode in ("CMYK", "YCbCr"):
        return np.asarray(image.convert("RGB")), kind
    if image.mode == "I" and image.format == "PNG":  # 16 bits, as Pillow 10 gives them
        return np.asarray(image).astype(np.uint16), kind
    if image.mode not in ("1", "L", "LA", "RGB", "RGBA", "RGBX", "I;16", "I;16B", "F"):
        raise DataError(f"{path}: pixels of mode {image.mode} have no known range; save as 8- or 16-bit or float32")
    return np.asarray(image), kind


# --- 16-bit PNG


def is_png16(head: bytes) -> bool:
    """Whether a file that begins so is a PNG of 16 bits and more than one channel, or with alpha."""
    return head.startswith(b"\x89PNG") and head[24:25] == b"\x10" and head[25:26] != b"\0"  # IHDR: depth, colour type


def decode_png16(file: IO[bytes], path: Path, head: bytes, limit: Limit) -> Pixels:
    """Lossless: Pillow has no 16-bit colour mode, but its unpackers can read either byte of each value."""
    width, height, color_type = (*struct.unpack_from(">II", head, 16), head[25])
    check_size(path, width, height, limit, 6 if color_type == 2 else 8)
    if color_type == 4:  # gray and alpha: (gray high, gray low, alpha high, alpha low) looks like RGBA
        pairs = _unpack(file, path, head, limit, "RGBA", "RGBA")
        high, low = pairs[..., 0], pairs[..., 1]
    else:
        mode = "RGB" if color_type == 2 else "RGBA"
        high = _unpack(file, path, head, limit, mode, f"{mode};16B")[..., :3]
        low = _unpack(file, path, head, limit, mode, f"{mode};16L")[
            ..., :3
        ]  # little-endian's high byte is big-endian's low
    values = high.astype(np.uint16)
    values <<= 8
    values |= low
    return Pixels(values, "exact")


def _unpack(file: IO[bytes], path: Path, head: bytes, limit: Limit, mode: str, raw: str) -> np.ndarray:
    with _open(file, path, head, limit) as image:
        image.tile = [(*tile[:3], raw) for tile in image.tile]
        image.load()
        if image.mode != mode:
            raise ValueError(f"a PNG of mode {image.mode}")
        return np.asarray(image)
