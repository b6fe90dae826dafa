"""Image files to pixel arrays exactly as stored, or one DataError that names the file."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from PIL.Image import DecompressionBombError

from adcore_runtime.decode_pillow import decode_pillow, decode_png16, header_size, is_png16
from adcore_runtime.decode_tiff import TIFF_MAGIC, decode_tiff
from adcore_runtime.errors import AdcoreError, DataError
from adcore_runtime.limits import Limit, pixel_limit
from adcore_runtime.pixels import RETRY, Pixels, out_of_memory

__all__ = ["Pixels", "decode", "stored_size"]


def decode(path: str | Path, channels: int = 3, limit: Limit = pixel_limit) -> Pixels:
    """Decode one image file by its content, whatever its suffix says.

    EXIF orientation is applied, so that pixels stand as every viewer and labelling tool shows them; alpha is dropped,
    unless a TIFF has as many `channels` as are wanted; CMYK and YCbCr become RGB. Raises DataError with the path and the
    next thing to try, also for an image larger than `limit()` gives, before memory is taken for it.
    """
    path = Path(path)
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
        if kind == stat.S_IFDIR:
            raise DataError(f"{path}: is a folder, not an image file")
        if kind != stat.S_IFREG:  # opening a pipe would wait for its writer
            raise DataError(f"{path}: is a pipe or a device, not an image file; move it away")
        with open(path, "rb") as file:
            head = file.read(32)
            file.seek(0)
            if not head:
                raise DataError(f"{path}: the file is empty (0 bytes); {RETRY}")
            if head.startswith(TIFF_MAGIC):
                return decode_tiff(file, path, limit, channels)
            return decode_png16(file, path, head, limit) if is_png16(head) else decode_pillow(file, path, head, limit)
    except AdcoreError:
        raise
    except MemoryError:
        raise out_of_memory(path) from None
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check the dataset folder") from None
    except PermissionError:
        raise DataError(f"{path}: no permission to read it; check the file's owner and mode") from None
    except DecompressionBombError as error:  # a limit of Pillow's own, for WebP and the tiles of a TIFF
        raise DataError(
            f"{path}: {_first_line(error)}; cut it into tiles, or save it as PNG or as TIFF with smaller tiles"
        ) from None
    except Exception as error:  # on damaged data the decoders raise anything: OSError, struct.error, IndexError, ...
        raise DataError(f"{path}: cannot be decoded, perhaps truncated ({_first_line(error)}); {RETRY}") from error


def stored_size(path: str | Path, limit: Limit = pixel_limit) -> tuple[int, int] | None:
    """Height and width of the decoded image, from its header alone; None for a TIFF, and for what cannot be read."""
    path = Path(path)
    try:
        if not path.is_file():
            return None
        with open(path, "rb") as file:
            head = file.read(32)
            return None if head.startswith(TIFF_MAGIC) else header_size(file, path, head, limit)
    except Exception:  # decoding the file will say what is wrong with it
        return None


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:160]
