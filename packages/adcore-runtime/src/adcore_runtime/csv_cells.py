"""CSV cells that a spreadsheet program never runs as a formula."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # a cell that begins so may be run as a formula


def cell(value: Any) -> Any:
    """`value` for a CSV file: text that a spreadsheet program could run gets a ' in front; numbers stay numbers."""
    if not isinstance(value, str) or not value.lstrip("'").startswith(FORMULA) or _is_number(value):
        return value
    return f"'{value}"


def cells(values: Iterable[Any]) -> list[Any]:
    """`cell` of each."""
    return [cell(value) for value in values]


def plain(text: str) -> str:
    """The inverse of `cell` for text."""
    return text[1:] if text.startswith("'") and text.lstrip("'").startswith(FORMULA) else text


def whole_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table as they stand there, without a last line that a kill has cut; none where there is no table."""
    if not path.is_file():
        return []
    text = path.read_bytes().decode("utf-8", "replace")
    whole = io.StringIO(text[: text.rfind("\r\n") + 2], newline="")
    return [row for row in csv.DictReader(whole) if None not in row.values() and None not in row]


def continued(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, str]]) -> IO[str]:
    """A table of `columns`, begun anew with `rows` (written as they stand) and open for more."""
    begun = path.with_name(f"{path.name}.new")
    with open(begun, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    os.replace(begun, path)
    return open(path, "a", newline="", encoding="utf-8")


class Writer:
    """Writes rows, given as dicts, to an open CSV file; the first line holds the names of the columns."""

    def __init__(self, file: IO[str], columns: Sequence[str], header: bool = True) -> None:
        self._writer = csv.DictWriter(file, columns)
        if header:
            self._writer.writeheader()

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row; ValueError for a key that is no column."""
        self._writer.writerow({key: cell(value) for key, value in row.items()})


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.strip() == text
