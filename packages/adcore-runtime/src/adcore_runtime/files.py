"""Atomic files, and cleaning up after failures."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from adcore_runtime.errors import DataError

LOCK, OWNER = ".lock", ".lock.owner"  # the lock, and who holds it in words (Windows lets nobody read a locked file)
_TEMPORARY = re.compile(r"\.adcore-(\d+)-\d+\.tmp")  # process id, number
_count = itertools.count()


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; renamed to `path` on success, removed on any failure.

    An OSError that names no file, or the temporary one, names `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # short, whatever the length of the name; the same suffix, since writers look at it
    temporary = path.with_name(f".adcore-{os.getpid()}-{next(_count)}.tmp{path.suffix}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode & 0o777  # of the umask; a library may write with another one
        yield temporary
        temporary.chmod(mode)
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(temporary), temporary):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def holds_files(folder: Path) -> bool:
    """Whether anything but the files of a lock is in `folder`."""
    return folder.is_dir() and any(path.name not in (LOCK, OWNER) for path in folder.iterdir())


@contextmanager
def removed_on_failure(folder: Path, unless: Path | None = None) -> Iterator[None]:
    """On any failure `folder`, if it was missing or empty, is so again, and new folders above it go if they are empty.

    All stays if the file `unless` is there.
    """
    created, empty = missing(folder), not holds_files(folder)
    try:
        yield
    except BaseException:
        if empty and not (unless and unless.is_file()):
            for path in folder.iterdir() if folder.is_dir() else ():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                elif path.name not in (LOCK, OWNER):
                    path.unlink(missing_ok=True)
            remove_empty(created)
        raise


def remove_leftovers(folder: Path, *below: str) -> None:
    """Delete what a killed process left half-written in `folder` itself, and anywhere in its folders called `below`."""
    for path in leftovers(folder, *below):
        with suppress(OSError):  # Windows keeps a file that a process has open
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def only_leftovers(folder: Path) -> bool:
    """Whether nothing but temporary files, of this or other processes, and the files of a lock are in `folder`."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return all(name in (LOCK, OWNER) or _TEMPORARY.match(name) for name in names)


def leftovers(folder: Path, *below: str) -> list[Path]:
    """What `remove_leftovers` deletes: temporary files and folders of processes that are no longer there."""
    found = [*folder.glob(".adcore-*"), *(path for name in below for path in (folder / name).rglob(".adcore-*"))]
    named = [(path, _TEMPORARY.match(path.name)) for path in found]
    return [path for path, temporary in named if temporary and not _is_running(int(temporary[1]))]


def new_folder(path: Path, overwrite: bool) -> Path:
    """`path`, when a run may write there; DataError when it holds something and `overwrite` is off."""
    if path.exists() and not path.is_dir():
        raise DataError(f"{path} is a file; choose another --out")
    if holds_files(path) and not overwrite:
        raise DataError(f"{path} exists and is not empty; choose another --out, or pass --overwrite")
    return path


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, data: Any) -> None:
    """Write readable JSON atomically; NaN is refused, since JSON has none."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False, default=str) + "\n")


def printable(path: str | os.PathLike[str]) -> str:
    """A path as one line of UTF-8 text; bytes that are not UTF-8, and control characters, are written as `\\xe9`."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda found: ascii(found[0])[1:-1], text)


def missing(folder: Path) -> list[Path]:
    """`folder` and the folders above it that do not exist, the innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def remove_empty(folders: list[Path]) -> None:
    """Remove those of `folders` that exist and are empty; stop at the first that is not."""
    with suppress(OSError):  # another run writes there
        for folder in folders:
            if folder.exists():
                folder.rmdir()


def _is_running(pid: int) -> bool:
    """Whether another process has this id. On Windows, where asking would end it: no; its open files stay by themselves."""
    if os.name == "nt" or pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
