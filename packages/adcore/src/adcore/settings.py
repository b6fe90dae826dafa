"""Where data, weights and results live: arguments first, then set_globals, environment, adcore.toml, defaults."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from operator import index
from pathlib import Path
from typing import Any

from adcore_runtime.limits import LOWEST_PIXEL_LIMIT, PIXEL_LIMIT

from adcore.errors import ConfigError


@dataclass(frozen=True)
class Settings:
    """Folders and switches that hold for the whole process."""

    dataset_dir: Path | None = None  # root under which `--data mvtec` without a path looks
    backbone_dir: Path | None = None  # weights files
    output_dir: Path = Path("results")
    seed: int = 42
    device: str = "auto"  # "auto", "cpu", "cuda", "cuda:1", ...
    num_workers: int = 0  # processes that read images; 0: threads of this one
    cache: str = "auto"  # where training keeps images that were read once: auto, memory, disk, off
    pin_memory: bool = False  # batches in page-locked memory, which a GPU copies from faster
    persistent_workers: bool = True  # False: new processes that read in every epoch
    allow_downloads: bool = False
    max_image_pixels: int = PIXEL_LIMIT  # width times height; larger images are refused


_KEYS = [f.name for f in fields(Settings)]
_globals: dict[str, Any] = {}


def _folder(value: Any) -> Path | None:
    if isinstance(value, str | os.PathLike) and str(value):
        return Path(value).expanduser()
    raise ValueError


def _whole_number(lowest: int, end: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        number = int(value) if isinstance(value, str) else index(value)
        if isinstance(value, bool) or not lowest <= number < end:
            raise ValueError
        return number

    return check


def _device(value: Any) -> str:
    if isinstance(value, str) and value:
        return value
    raise ValueError


def _cache(value: Any) -> str:
    if value in ("auto", "memory", "disk", "off"):
        return value
    raise ValueError


def _switch(value: Any) -> bool:
    return value if isinstance(value, bool) else _SWITCH[str(value).lower()]


_SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
_ACCEPTED: dict[str, tuple[Callable[[Any], Any], str]] = {  # key -> (its check, what it accepts)
    "dataset_dir": (_folder, "a folder"),
    "backbone_dir": (_folder, "a folder"),
    "output_dir": (_folder, "a folder"),
    "seed": (_whole_number(0, 2**32), "a whole number from 0 to 4294967295"),
    "device": (_device, "auto, cpu, cuda, cuda:1, ..."),
    "num_workers": (_whole_number(0, 1025), "a whole number from 0 to 1024"),
    "cache": (_cache, "auto, memory, disk or off"),
    "pin_memory": (_switch, "true or false"),
    "persistent_workers": (_switch, "true or false"),
    "allow_downloads": (_switch, "true or false"),
    "max_image_pixels": (_whole_number(LOWEST_PIXEL_LIMIT, 2**62), f"a whole number from {LOWEST_PIXEL_LIMIT}"),
}


def set_globals(*, show_globals: bool = False, **values: Any) -> Settings:
    """Set any fields of `Settings` for this process; with `show_globals`, print those in force.

    None resets a folder. Raises ConfigError for an unknown key or a value of a wrong type, and then changes nothing.
    """
    _globals.update(_checked(values, "set_globals: "))
    if show_globals:
        print("\n".join(f"{key} = {getattr(settings(), key)}" for key in _KEYS))
    return settings()


def settings() -> Settings:
    """The settings in force now; ConfigError that names file or variable, key, and what is accepted."""
    return replace(Settings(), **{**_from_toml(), **_from_environment(), **_globals})


def max_image_pixels() -> int:
    """The setting of that name, for decoding."""
    return settings().max_image_pixels


def user_backbone_dir() -> Path:
    """Where weights that were pulled are kept when no backbone_dir is set."""
    return Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local" / "share")) / "adcore" / "backbones"


def _from_environment() -> dict[str, Any]:
    found = {key: os.environ[f"ADCORE_{key.upper()}"] for key in _KEYS if os.environ.get(f"ADCORE_{key.upper()}")}
    return {key: _accepted(key, value, f"ADCORE_{key.upper()}") for key, value in found.items()}


def _from_toml() -> dict[str, Any]:
    """`adcore.toml` of the working folder, or of the nearest folder above it; relative paths are relative to the file."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        file = folder / "adcore.toml"
        if file.is_file():
            try:
                values = tomllib.loads(file.read_text(encoding="utf-8"))
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise ConfigError(f"{file} is not valid TOML: {error}") from None
            checked = _checked(values, f"{file}: ")
            return {key: folder / value if isinstance(value, Path) else value for key, value in checked.items()}
    return {}


def _checked(values: dict[str, Any], source: str) -> dict[str, Any]:
    unknown = [key for key in values if key not in _KEYS]
    if unknown:
        raise ConfigError(f"{source}unknown setting '{unknown[0]}'; valid ones: {', '.join(_KEYS)}")
    return {key: _accepted(key, value, source + key) for key, value in values.items()}


def _accepted(key: str, value: Any, place: str) -> Any:
    check, accepted = _ACCEPTED[key]
    if value is None and getattr(Settings, key) is None:
        return None
    try:
        return check(value)
    except (TypeError, ValueError, KeyError):
        raise ConfigError(f"{place} must be {accepted}, not {value!r}") from None
