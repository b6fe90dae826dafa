"""The chain of a TIFF file's directories, followed with bounds before a library reads whatever they point to."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import IO

from adcore_runtime.errors import DataError
from adcore_runtime.pixels import RETRY

MAX_PAGES = 64  # a picture and its thumbnails
MAX_ENTRIES = 4096  # in one directory
MAX_VALUES = 1 << 20  # numbers in all of a page's entries: two for each strip or tile
INNER = (34665, 34853, 40965)  # entries that point to directories which Pillow reads: EXIF, GPS, interoperability
TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
BYTES = (1, 2, 6, 7)  # types that are read as one piece


def check_directories(file: IO[bytes], path: Path) -> None:
    """Raise DataError for a chain in a circle or without an end, and for entries that hold more than the file has.

    What else may be damaged is left to the decoder.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    big = head[2:4] in (b"+\0", b"\0+")
    offset = struct.unpack_from(f"{order}Q", head, 8)[0] if big else struct.unpack_from(f"{order}I", head, 4)[0]
    seen: set[int] = set()
    while 0 < offset < size:
        if offset in seen:
            raise DataError(f"{path}: its pages are chained in a circle; {RETRY}")
        if len(seen) == MAX_PAGES:
            raise DataError(f"{path}: a TIFF of more than {MAX_PAGES} pages; save each page as an image of its own")
        seen.add(offset)
        inner, offset = _check_directory(file, path, order, big, offset, size)
        for start in inner:
            _check_directory(file, path, order, big, start, size)


def _check_directory(
    file: IO[bytes], path: Path, order: str, big: bool, offset: int, size: int
) -> tuple[list[int], int]:
    """Offsets of the directories inside this one, and of the next, 0 where there is none."""
    file.seek(min(offset, size))
    count_format, entry_format, next_format = ("Q", "HHQ8s", "Q") if big else ("H", "HHI4s", "I")
    (count,) = struct.unpack(order + count_format, file.read(8 if big else 2).ljust(8 if big else 2, b"\0"))
    if count > MAX_ENTRIES:
        raise DataError(f"{path}: a TIFF directory of {count} entries; {RETRY}")
    entry_size = struct.calcsize(order + entry_format)
    entries = file.read(count * entry_size)
    following = file.read(8 if big else 4)
    if len(entries) < count * entry_size or len(following) < (8 if big else 4):
        raise DataError(f"{path}: its TIFF directory is cut off; {RETRY}")
    inner, total, values = [], 0, 0
    for tag, kind, number, value in struct.iter_unpack(order + entry_format, entries):
        length = number * TYPE_SIZES.get(kind, 0)
        if length > len(value) and struct.unpack_from(order + next_format, value)[0] + length > size:
            raise DataError(f"{path}: the value of its TIFF tag {tag} is cut off; {RETRY}")
        total += length
        values += 0 if kind in BYTES else number
        if tag in INNER:
            inner.append(struct.unpack_from(order + next_format, value)[0])
    if total > 2 * size or values > MAX_VALUES:  # twice: harmless entries may share what they point to
        raise DataError(f"{path}: a TIFF directory with more values than the file has; {RETRY}")
    return inner, struct.unpack(order + next_format, following)[0]
