"""Writing files so that a crash never leaves a broken one under its final name."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; renamed to `path` on success, removed on any failure."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp{path.suffix}")  # same suffix: writers look at it
    try:
        temporary.touch()
        mode = temporary.stat().st_mode & 0o777  # of the umask; a library may write with another one
        yield temporary
        temporary.chmod(mode)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def removed_on_failure(folder: Path, unless: Path | None = None) -> Iterator[None]:
    """On any failure `folder` and the then empty folders above it go, where they were not there before.

    All stays if the file `unless` is there.
    """
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except BaseException:
        if created and not (unless and unless.is_file()):
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # another run writes there, too
                for above in created[1:]:
                    above.rmdir()
        raise


def remove_leftovers(folder: Path, below: bool = True) -> None:
    """Delete the temporary files that a killed process left in `folder`, and in all folders `below` it."""
    for path in folder.rglob(".*.tmp*") if below else folder.glob(".*.tmp*"):
        path.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, data: Any) -> None:
    """Write readable JSON atomically; NaN is refused, since JSON has none."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False, default=str) + "\n")


def sha256_file(path: str | Path) -> str:
    """Hex sha256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def printable(path: str | os.PathLike[str]) -> str:
    """A path as one line of UTF-8 text; bytes that are not UTF-8, and control characters, are written as `\\xe9`."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda found: ascii(found[0])[1:-1], text)
