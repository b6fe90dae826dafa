"""What all dataset readers share: listing image files, finding masks, and errors that say what was found. No torch."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from pathlib import Path

from adcore.errors import DataError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
MASK_ENDINGS = ("_mask", "-mask", "_gt", "_seg")


def is_image(name: str) -> bool:
    """Whether a file name is that of an image; hidden files (`._x.png`) are not."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith(".")


def images_in(folder: Path) -> list[Path]:
    """Image files directly in `folder`, sorted by name; empty where there is no such folder."""
    if not folder.is_dir():
        return []
    return [folder / name for name in sorted(os.listdir(folder)) if is_image(name)]


def images_below(folder: Path) -> list[Path]:
    """Image files anywhere below `folder`, sorted by path; hidden folders are left out, links are followed once."""
    found, visited = [], set()
    for current, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(current)
        folders[:] = [] if real in visited else sorted(name for name in folders if not name.startswith("."))
        if real not in visited:
            found += [Path(current, name) for name in files if is_image(name)]
        visited.add(real)
    return sorted(found)


def folders_in(folder: Path) -> list[Path]:
    """Visible folders directly in `folder`, sorted by name; empty where there is no such folder."""
    if not folder.is_dir():
        return []
    return [
        folder / name for name in sorted(os.listdir(folder)) if not name.startswith(".") and (folder / name).is_dir()
    ]


def mask_stem(name: str) -> str:
    """The name of the image that a mask file belongs to, without suffix: `07_mask.png` -> `07`."""
    stem = os.path.splitext(name)[0]
    for ending in MASK_ENDINGS:
        if stem.lower().endswith(ending) and len(stem) > len(ending):
            return stem[: -len(ending)]
    return stem


def masks_by_stem(folder: Path) -> dict[str, Path]:
    """Masks in `folder` by the name of their image; a marked one (`07_mask.png`) goes before an equal name (`07.png`)."""
    files = images_in(folder)
    plain = {path.stem: path for path in files}
    marked = {mask_stem(path.name): path for path in files if mask_stem(path.name) != path.stem}
    return plain | marked


def found_in(folder: Path, limit: int = 6) -> str:
    """What stands in a folder, for error messages: "found: test, train, readme.txt"."""
    if not folder.exists():
        parent = folder.parent
        return f"no such folder; in {parent} {found_in(parent)}" if parent.is_dir() else "no such folder"
    if not folder.is_dir():
        return "that is a file"
    names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"found: {', '.join(names[:limit])}{more}" if names else "the folder is empty"


def layout_error(root: Path, layout: str) -> DataError:
    """The error for a folder that is not of the expected layout: what was expected, and what is there."""
    return DataError(f"{root}: expected {layout}; {found_in(root)}")


def read_csv(file: Path, required: Iterable[str], columns: Iterable[str]) -> list[dict[str, str]]:
    """Rows of a UTF-8 CSV file, absent cells as ""; DataError where a `required` one of its `columns` is missing."""
    try:
        with open(file, newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle, restval="")
            if not set(required) <= set(reader.fieldnames or ()):
                found = ",".join(reader.fieldnames or ()) or "nothing"
                raise DataError(f"{file}: expected the columns {','.join(columns)}; found: {found}")
            return list(reader)
    except FileNotFoundError:
        raise DataError(f"{file}: no such file; {found_in(file.parent)}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: not a UTF-8 CSV file ({error}); save it again as 'CSV UTF-8'") from None


def check_category(category: str, known: Iterable[str], root: Path) -> None:
    """Raise DataError with the nearest names when the dataset has no such category."""
    known = list(known)
    if category in known:
        return
    from adcore.registry import suggest

    hint = suggest(category, known)
    listing = "" if hint else f"; it has: {', '.join(known[:12])}{' ...' if len(known) > 12 else ''}"
    raise DataError(f"{root}: no category '{category}'{hint}{listing}")
