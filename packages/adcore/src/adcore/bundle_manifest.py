"""The manifest of a bundle: what it lists, and whether a folder holds exactly that. Nothing that it lists is trusted."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adcore.errors import ConfigError
from adcore.files import printable, sha256_file

MANIFEST, FORMAT = "manifest.json", 1
MAX_BYTES = 2**26  # of a manifest


class _Entry(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0)]


class _Manifest(BaseModel):
    model_config = ConfigDict(strict=True)

    format: Annotated[int, Field(ge=1)]
    files: dict[str, _Entry]


def fingerprints(folder: Path) -> dict[str, dict[str, str | int]]:
    """{name: {"sha256", "bytes"}} of all files in `folder`."""
    return {name: {"sha256": sha256_file(path), "bytes": path.stat().st_size} for name, path in sorted(_walk(folder))}


def verify_bundle(folder: str | Path) -> list[str]:
    """What is wrong with a bundle, one line for each name that is missing, altered, not listed, or no plain file; else [].

    Links are reported and never followed. Raises ConfigError when the folder has no manifest that can be read.
    """
    folder = Path(folder)
    listed = _read(folder / MANIFEST).files
    problems = [f"not a name within the bundle: {printable(name)}" for name in sorted(listed) if not _is_inside(name)]
    listed = {name: entry for name, entry in listed.items() if _is_inside(name)}
    found = {name: path for name, path in _walk(folder) if name != MANIFEST}
    links = {name for name, path in found.items() if path.is_symlink()}
    plain = {name for name in found.keys() - links if found[name].is_file()}
    problems += [f"a link: {printable(name)}" for name in sorted(links)]
    problems += [f"not a file: {printable(name)}" for name in sorted(found.keys() - links - plain)]
    for name in sorted(listed.keys() - found.keys()):
        is_folder = any(other.startswith(f"{name}/") for other in found)
        problems.append(f"{'a folder' if is_folder else 'missing'}: {printable(name)}")
    problems += [f"not listed: {printable(name)}" for name in sorted(plain - listed.keys())]
    problems += [
        f"altered: {printable(name)}"
        for name in sorted(plain & listed.keys())
        if found[name].stat().st_size != listed[name].bytes or sha256_file(found[name]) != listed[name].sha256
    ]
    return problems


def _read(file: Path) -> _Manifest:
    """The manifest, checked."""
    if file.is_symlink():
        raise ConfigError(f"{file} is a link; copy the bundle again")
    if not file.is_file():
        raise ConfigError(f"{file.parent} is no bundle: it has no readable {MANIFEST}")
    damaged = f"{file} is damaged"
    if file.stat().st_size > MAX_BYTES:
        raise ConfigError(f"{damaged}: it is larger than {MAX_BYTES // 2**20} MB; copy the bundle again")
    try:
        record = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=_unique)
        version = record.get("format")
        if isinstance(version, int) and version > FORMAT:
            raise ConfigError(f"{file.parent} was made by a newer adcore (bundle format {version}); update adcore")
        return _Manifest.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        where = printable(".".join(map(str, first["loc"])) or "it")[:100]
        raise ConfigError(f"{damaged}: {where}: {first['msg']}; copy the bundle again") from None
    except (ValueError, AttributeError, RecursionError) as error:
        reason = printable((str(error).splitlines() or ["nested too deeply"])[0])[:200]
        raise ConfigError(f"{damaged}: {reason}; copy the bundle again") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is given twice")
    return found


def _is_inside(name: str) -> bool:
    """Whether a listed name is a relative one of the form that `fingerprints` writes, on every system."""
    path, windows = PurePosixPath(name), PureWindowsPath(name)
    plain = name == str(path) and "\\" not in name and "\0" not in name and not windows.drive and not windows.root
    return plain and not path.is_absolute() and name not in (".", MANIFEST) and ".." not in path.parts


def _walk(folder: Path) -> Iterator[tuple[str, Path]]:
    """(name, path) of everything in `folder` that is no folder, links to folders included; no link is followed."""
    for above, folders, files in os.walk(folder):
        links = [name for name in folders if Path(above, name).is_symlink()]
        for path in (Path(above, name) for name in (*files, *links)):
            yield path.relative_to(folder).as_posix(), path
