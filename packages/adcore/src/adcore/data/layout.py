"""What all dataset readers share: listing image files, finding masks, and errors that say what was found. No torch."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from itertools import zip_longest
from pathlib import Path

from adcore_runtime.listing import IMAGE_SUFFIXES, check_name, images_below, is_image

from adcore.errors import DataError, suggest
from adcore.files import printable

__all__ = [
    "IMAGE_SUFFIXES",
    "check_category",
    "check_name",
    "folders_in",
    "found_in",
    "images_below",
    "images_in",
    "is_image",
    "layout_error",
    "listed_file",
    "mask_stem",
    "masks_by_stem",
    "read_csv",
]
MASK_ENDINGS = ("_mask", "-mask", "_gt", "_seg")


def images_in(folder: Path) -> list[Path]:
    """Image files directly in `folder`, sorted by name; empty where there is no such folder."""
    if not folder.is_dir():
        return []
    return [check_name(folder / name) for name in sorted(os.listdir(folder)) if is_image(name)]


def folders_in(folder: Path) -> list[Path]:
    """Visible folders directly in `folder`, sorted by name; empty where there is no such folder."""
    if not folder.is_dir():
        return []
    names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    return [check_name(folder / name) for name in names if (folder / name).is_dir()]


def mask_stem(name: str) -> str:
    """The name of the image that a mask file belongs to, without suffix: `07_mask.png` -> `07`."""
    stem = os.path.splitext(name)[0]
    for ending in MASK_ENDINGS:
        if stem.lower().endswith(ending) and len(stem) > len(ending):
            return stem[: -len(ending)]
    return stem


def masks_by_stem(folder: Path) -> dict[str, Path]:
    """Masks in `folder` by the name of their image; `07_mask.png` takes precedence over `07.png`."""
    files = images_in(folder)
    plain = {path.stem: path for path in files}
    marked = {mask_stem(path.name): path for path in files if mask_stem(path.name) != path.stem}
    return plain | marked


def found_in(folder: Path, limit: int = 6) -> str:
    """The content of a folder, for error messages: "found: test, train, readme.txt"."""
    if not folder.exists():
        parent = folder.parent
        return f"no such folder; in {parent} {found_in(parent)}" if parent.is_dir() else "no such folder"
    if not folder.is_dir():
        return "that is a file"
    names = sorted(printable(name) for name in os.listdir(folder) if not name.startswith("."))
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"found: {', '.join(names[:limit])}{more}" if names else "the folder is empty"


def layout_error(root: Path, layout: str) -> DataError:
    """The error for a folder that is not of the expected layout: what was expected, and what is there."""
    return DataError(f"{root}: expected {layout}; {found_in(root)}")


def read_csv(file: Path, required: Iterable[str], columns: Iterable[str]) -> list[tuple[int, dict[str, str]]]:
    """Rows of a UTF-8 CSV file, each with its line number, absent cells as "".

    Raises DataError with file and line for a missing `required` one of its `columns`, a column that is there twice, a
    row with more cells than columns, and control characters.
    """
    rows: list[tuple[int, dict[str, str]]] = []
    line = 1
    try:
        if file.exists() and not file.is_file():
            raise DataError(f"{file}: not a file; give a CSV file")
        with open(file, newline="", encoding="utf-8-sig") as handle:
            reader = csv.reader(handle)
            names = next(reader, [])
            if not set(required) <= set(names):
                raise DataError(f"{file}: expected the columns {','.join(columns)}; found: {_shown(names)}")
            if len(set(names)) < len(names):
                raise DataError(f"{file}, line 1: a column is there twice: {_shown(names)}; remove one")
            for cells in reader:
                line = reader.line_num
                if not cells:
                    continue
                if len(cells) > len(names):
                    raise DataError(
                        f"{file}, line {line}: {len(cells)} cells for {len(names)} columns; "
                        "put a cell that has a comma in double quotes"
                    )
                row = dict(zip_longest(names, cells, fillvalue=""))
                bad = next((name for name, cell in row.items() if printable(cell) != cell), None)
                if bad is not None:
                    raise DataError(
                        f"{file}, line {line}: '{printable(bad)}' has control characters: {printable(row[bad])[:80]}; "
                        "save it again as 'CSV UTF-8'"
                    )
                rows.append((line, row))
    except FileNotFoundError:
        raise DataError(f"{file}: no such file; {found_in(file.parent)}") from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file}, after line {line}: not a UTF-8 CSV file ({error}); save it again as 'CSV UTF-8'"
        ) from None
    except csv.Error as error:
        raise DataError(f"{file}, after line {line}: not a CSV file ({error}); save it again as 'CSV UTF-8'") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); check its owner and mode") from None
    return rows


def listed_file(root: Path, name: str, table: Path, line: int) -> Path:
    """The file that a cell names, below `root`; DataError where there is none."""
    path = root / name
    if name and not os.path.isfile(path):
        path = root / name.replace("\\", "/")  # as a table that was written on Windows has it
    if name and os.path.isfile(path):  # False for a name that no system takes, where Path.is_file raises
        return path
    shown = str(path) if len(name) <= 400 else f"{name[:80]}... ({len(name)} characters)"
    raise DataError(f"{shown}: listed in {table}, line {line}, but missing; correct the row or bring the file back")


def _shown(names: list[str]) -> str:
    return printable(",".join(names))[:200] or "nothing"


def check_category(category: str, known: Iterable[str], root: Path) -> None:
    """Raise DataError with the nearest names when the dataset has no such category."""
    known = list(known)
    if category in known:
        return
    hint = suggest(category, known)
    listing = "" if hint else f"; it has: {', '.join(known[:12])}{' ...' if len(known) > 12 else ''}"
    raise DataError(f"{root}: no category '{category}'{hint}{listing}")
