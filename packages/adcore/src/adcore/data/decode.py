"""Image files to pixel arrays exactly as stored: Pillow for 8 bits, tifffile for deeper TIFF, both halves of a 16-bit PNG."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from adcore.errors import DataError

if TYPE_CHECKING:
    import tifffile

logging.getLogger("tifffile").addHandler(
    logging.NullHandler()
)  # a broken file is one DataError, not a page of warnings

Image.preinit()  # its readers are imported here, not by the first of the threads that read while the others wait

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # little and big endian, classic and BigTIFF
PNG_MAGIC = b"\x89PNG"
ORIENTATION = 0x0112  # the EXIF and TIFF tag
RETRY = "copy it again from its source, or leave such files out with --skip-bad"


class Pixels(NamedTuple):
    """A decoded file, upright and without alpha."""

    values: np.ndarray  # (H, W) or (H, W, 3): bool, uint8, uint16 or floating point
    kind: str  # "exact", "lossy" (JPEG, WebP), "palette" (values are the colours) or "ink" (one bit, 1 is black)


def decode(path: str | Path) -> Pixels:
    """Decode one image file by its content, whatever its suffix says.

    EXIF orientation is applied, so that pixels stand as every viewer and labelling tool shows them; alpha is dropped;
    CMYK and YCbCr become RGB. Raises DataError with the path and the next thing to try.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            head = file.read(26)
            file.seek(0)
            if not head:
                raise DataError(f"{path}: the file is empty (0 bytes); {RETRY}")
            if head.startswith(TIFF_MAGIC):
                return _decode_tiff(file, path)
            if head.startswith(PNG_MAGIC) and head[24:25] == b"\x10":  # IHDR: bit depth, then colour type
                return _decode_png16(file, path, color_type=head[25])
            return _decode_pillow(file, path)
    except (DataError, MemoryError):
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check the dataset folder") from None
    except IsADirectoryError:
        raise DataError(f"{path}: is a folder, not an image file") from None
    except PermissionError:
        raise DataError(f"{path}: no permission to read it; check the file's owner and mode") from None
    except Image.UnidentifiedImageError:
        raise DataError(f"{path}: not a {', '.join(FORMATS)} image, or its header is damaged; {RETRY}") from None
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{path}: {_first_line(error)}; cut it into tiles, or raise PIL.Image.MAX_IMAGE_PIXELS"
        ) from None
    except Exception as error:  # on damaged data the decoders raise anything: OSError, struct.error, IndexError, ...
        raise DataError(f"{path}: cannot be decoded, perhaps truncated ({_first_line(error)}); {RETRY}") from error


def _decode_pillow(file: IO[bytes], path: Path) -> Pixels:
    with Image.open(file, formats=FORMATS) as image:
        if image.format in ("PNG", "WEBP") and getattr(image, "n_frames", 1) > 1:
            raise DataError(f"{path}: an animation of {image.n_frames} frames; save each frame as an image of its own")
        image.load()  # turns a TIFF upright by itself, and then has no orientation any more
        orientation = image.getexif().get(ORIENTATION, 1)
        kind = "lossy" if image.format in ("JPEG", "MPO", "WEBP") else "exact"
        if image.mode in ("P", "PA"):
            image.info.pop("transparency", None)
            image, kind = image.convert("RGB"), "palette"
        elif image.mode in ("CMYK", "YCbCr"):
            image = image.convert("RGB")
        elif image.mode not in ("1", "L", "LA", "RGB", "RGBA", "RGBX", "I;16", "I;16B", "F"):
            raise DataError(f"{path}: pixels of mode {image.mode} have no known range; save as 8- or 16-bit or float32")
        values = np.asarray(image)
    return Pixels(_upright(_without_alpha(values, path), orientation), kind)


def _decode_png16(file: IO[bytes], path: Path, color_type: int) -> Pixels:
    """16-bit PNG, lossless: Pillow has no 16-bit colour mode, but its unpackers can read either byte of each value."""
    if color_type == 0:  # gray: mode I;16
        return _decode_pillow(file, path)
    if color_type == 4:  # gray and alpha: (gray high, gray low, alpha high, alpha low) looks like RGBA
        pairs = _unpack(file, "RGBA", "RGBA").astype(np.uint16)
        return Pixels(pairs[..., 0] << 8 | pairs[..., 1], "exact")
    mode = "RGB" if color_type == 2 else "RGBA"
    high = _unpack(file, mode, f"{mode};16B")
    low = _unpack(file, mode, f"{mode};16L")  # the high byte of little-endian data is the low byte of PNG's big-endian
    return Pixels((high.astype(np.uint16) << 8 | low)[..., :3], "exact")


def _unpack(file: IO[bytes], mode: str, raw: str) -> np.ndarray:
    file.seek(0)
    with Image.open(file, formats=("PNG",)) as image:
        image.tile = [(*tile[:3], raw) for tile in image.tile]
        image.load()
        return np.asarray(image)


def _decode_tiff(file: IO[bytes], path: Path) -> Pixels:
    import tifffile  # for these alone

    with tifffile.TiffFile(file) as tiff:
        pages = [page for page in tiff.pages if not page.is_reduced]  # thumbnails and pyramid levels do not count
        if len(pages) != 1:
            raise DataError(f"{path}: a TIFF of {len(pages)} pages; save each page as an image of its own")
        page = pages[0]
        if page.samplesperpixel > 4:
            raise DataError(f"{path}: {page.samplesperpixel} channels are not supported; save gray, RGB or RGBA")
        if page.bitspersample > 8 and page.dtype not in (np.uint16, np.float16, np.float32, np.float64):
            raise DataError(f"{path}: {page.dtype} pixels have no known range; save as uint8, uint16 or float32")
        if page.bitspersample > 8:
            values = _tifffile_values(page, path)
            if values is not None:
                orientation = page.tags.valueof(ORIENTATION, 1)
                return Pixels(_upright(_without_alpha(values, path), orientation), "exact")
    file.seek(0)
    pixels = _decode_pillow(file, path)  # up to 8 bits, and single channels of any depth, Pillow is lossless
    ink = page.bitspersample == 1 and page.photometric.name == "MINISWHITE"
    return pixels._replace(kind="ink") if ink else pixels


def _tifffile_values(page: tifffile.TiffPage, path: Path) -> np.ndarray | None:
    """(H, W) or (H, W, C); None where only Pillow has the codec."""
    if page.photometric.name not in ("MINISBLACK", "MINISWHITE", "RGB"):
        raise DataError(f"{path}: deep TIFF with {page.photometric.name} colours; save it as gray or RGB")
    try:
        values = page.asarray()
    except (ValueError, KeyError, ModuleNotFoundError) as error:
        if "imagecodecs" not in str(error) and not isinstance(error, ModuleNotFoundError):
            raise
        if page.samplesperpixel == 1:
            return None
        raise DataError(
            f"{path}: {page.compression.name} compression of a {page.bitspersample}-bit colour TIFF needs a codec; "
            "pip install imagecodecs, or save it with deflate or no compression"
        ) from None
    if values.ndim == 3 and page.axes.startswith("S"):  # one plane after the other
        values = np.moveaxis(values, 0, -1)
    if page.photometric.name == "MINISWHITE" and values.dtype == np.uint16:
        values = np.uint16(65535) - values
    return values


def _without_alpha(values: np.ndarray, path: Path) -> np.ndarray:
    if values.ndim == 2:
        return values
    if values.ndim != 3 or values.shape[2] > 4:
        raise DataError(f"{path}: pixels of shape {values.shape} are not supported; save gray, RGB or RGBA")
    return values[..., :3] if values.shape[2] >= 3 else values[..., 0]


def _upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """Undo the camera's rotation (EXIF orientation 1 to 8) with views, never copies."""
    if orientation in (5, 6, 7, 8):  # rows and columns are exchanged
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:160]
