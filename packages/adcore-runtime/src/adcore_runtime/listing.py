"""Which files are images, and those below a folder."""

from __future__ import annotations

import os
from pathlib import Path

from adcore_runtime.errors import DataError
from adcore_runtime.files import printable

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})


def is_image(name: str) -> bool:
    """Whether a file name is that of an image; hidden files (`._x.png`) are not."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith(".")


def check_name(path: Path) -> Path:
    """The path itself; DataError where results could not be written with it: not UTF-8, or with control characters."""
    if printable(path) == str(path):
        return path
    raise DataError(f"{printable(path)}: its name is not UTF-8 text, or has control characters; rename it")


def images_below(folder: Path) -> list[Path]:
    """Image files anywhere below `folder`, sorted by path; hidden folders are left out, links are followed once."""
    found, visited = [], set()
    for current, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(current)
        folders[:] = [] if real in visited else sorted(name for name in folders if not name.startswith("."))
        if real not in visited:
            found += [check_name(Path(current, name)) for name in files if is_image(name)]
        visited.add(real)
    return sorted(found)


def find_images(source: Path) -> list[Path]:
    """`source` itself, or all images below it, sorted; DataError when there is none."""
    if source.is_file():
        return [check_name(source)]
    if not source.is_dir():
        raise DataError(f"{source} does not exist; give an image or a folder of images")
    found = images_below(source)
    if not found:
        raise DataError(f"{source} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return found
