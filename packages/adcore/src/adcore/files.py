"""Atomic files, cleaning up after failures, and locks on folders."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import platform
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adcore.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

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


@contextmanager
def folder_lock(folder: Path, wait: float = 0.0) -> Iterator[None]:
    """Keep other processes out of `folder`, which is created where it is missing, and removed if it stays empty.

    Raises ConfigError when another process keeps the lock for more than `wait` seconds (-1: no limit). Killed ones keep none.
    """
    from filelock import FileLock, Timeout

    created = _missing(folder)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    lock, owner = FileLock(folder / LOCK), folder / OWNER
    try:
        lock.acquire(timeout=wait)
        while not (folder / LOCK).exists():  # its former holder has just removed it, so it locks nothing
            lock.release()
            lock.acquire(timeout=wait)
    except Timeout:
        holder = owner.read_text(encoding="utf-8").strip() if owner.is_file() else "another process"
        raise ConfigError(f"{folder} is in use by {holder}; wait for its end or choose another --out") from None
    try:
        owner.write_text(f"process {os.getpid()} on {platform.node()}\n", encoding="utf-8")
        yield
    finally:
        owner.unlink(missing_ok=True)
        if os.name == "nt":  # where an open file cannot be removed
            lock.release()
        with suppress(OSError):
            (folder / LOCK).unlink(missing_ok=True)
        lock.release()
        if not holds_files(folder):
            _remove_empty(created)


def holds_files(folder: Path) -> bool:
    """Whether anything but the files of a lock is in `folder`."""
    return folder.is_dir() and any(path.name not in (LOCK, OWNER) for path in folder.iterdir())


@contextmanager
def removed_on_failure(folder: Path, unless: Path | None = None) -> Iterator[None]:
    """On any failure `folder`, if it was missing or empty, is so again, and new folders above it go if they are empty.

    All stays if the file `unless` is there.
    """
    created, empty = _missing(folder), not holds_files(folder)
    try:
        yield
    except BaseException:
        if empty and not (unless and unless.is_file()):
            for path in folder.iterdir() if folder.is_dir() else ():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                elif path.name not in (LOCK, OWNER):
                    path.unlink(missing_ok=True)
            _remove_empty(created)
        raise


def remove_leftovers(folder: Path, *below: str) -> None:
    """Delete what a killed process left half-written in `folder` itself, and anywhere in its folders called `below`."""
    found = [*folder.glob(".adcore-*"), *(path for name in below for path in (folder / name).rglob(".adcore-*"))]
    for path in found:
        temporary = _TEMPORARY.match(path.name)
        if temporary and not _is_running(int(temporary[1])):
            with suppress(OSError):  # Windows keeps a file that a process has open
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, data: Any) -> None:
    """Write readable JSON atomically; NaN is refused, since JSON has none."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False, default=str) + "\n")


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file atomically; OSError when the disk is full, for example."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with atomic_path(path) as temporary:
        try:
            save_file(dict(tensors), temporary, metadata=metadata)
        except SafetensorError as error:
            number = re.search(r"\(os error (\d+)\)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None


def sha256_file(path: str | Path) -> str:
    """Hex sha256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def printable(path: str | os.PathLike[str]) -> str:
    """A path as one line of UTF-8 text; bytes that are not UTF-8, and control characters, are written as `\\xe9`."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda found: ascii(found[0])[1:-1], text)


def _missing(folder: Path) -> list[Path]:
    """`folder` and the folders above it that do not exist, the innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def _remove_empty(folders: list[Path]) -> None:
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
