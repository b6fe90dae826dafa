"""Atomic files, cleaning up after failures, and locks on folders."""

from __future__ import annotations

import hashlib
import os
import platform
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from adcore_runtime.files import (
    LOCK,
    OWNER,
    atomic_path,
    holds_files,
    missing,
    new_folder,
    only_leftovers,
    printable,
    remove_empty,
    remove_leftovers,
    removed_on_failure,
    write_json,
    write_text,
)

from adcore.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "LOCK",
    "OWNER",
    "atomic_path",
    "folder_lock",
    "holds_files",
    "new_folder",
    "only_leftovers",
    "portable_path",
    "printable",
    "remove_leftovers",
    "removed_on_failure",
    "sha256_file",
    "write_json",
    "write_tensors",
    "write_text",
]


@contextmanager
def folder_lock(folder: Path, wait: float = 0.0) -> Iterator[None]:
    """Keep other processes out of `folder`, which is created where it is missing, and removed if it stays empty.

    Raises ConfigError when another process keeps the lock for more than `wait` seconds (-1: no limit). Killed ones keep none.
    """
    from filelock import FileLock, Timeout

    created = missing(folder)
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
            remove_empty(created)


def portable_path(text: str) -> Path:
    """The path that a file's `text` names, also where the file was written on Windows: there \\ separates folders.

    Raises ConfigError for a path with a drive where there are none, or with the tab or line end that JSON makes of `\\t`.
    """
    path = Path(text)
    if os.path.lexists(path):  # a name may hold a backslash, where it separates nothing
        return path
    if re.search(r"[\t\r\n]", text):
        raise ConfigError(f"{text!r} holds a tab or a line end; write each backslash of a path twice, or /")
    if os.name == "nt":
        return path
    if re.match(r"[A-Za-z]:|\\\\", text):  # a drive, or a share
        raise ConfigError(f"{text} is a path on Windows; give the folder on this machine")
    return Path(text.replace("\\", "/"))


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file atomically; OSError when the disk is full, for example."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with atomic_path(path) as temporary:
        try:
            save_file(dict(tensors), temporary, metadata=metadata)
        except SafetensorError as error:
            found = re.search(r"\(os error (\d+)\)|Os { code: (\d+)", str(error))  # newer and older safetensors
            if found is None:
                raise
            number = int(found[1] or found[2])
            raise OSError(number, os.strerror(number), str(path)) from None


def sha256_file(path: str | Path) -> str:
    """Hex sha256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
