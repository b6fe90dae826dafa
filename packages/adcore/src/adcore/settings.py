"""Where data, weights and results live: arguments first, then set_globals, environment, adcore.toml, defaults."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from adcore.errors import ConfigError


@dataclass(frozen=True)
class Settings:
    """Folders and switches that hold for the whole process."""

    dataset_dir: Path | None = None  # root under which `--data mvtec` without a path looks
    backbone_dir: Path | None = None  # weights files
    output_dir: Path = Path("results")
    seed: int = 42
    device: str = "auto"  # "auto", "cpu", "cuda", "cuda:1", ...
    allow_downloads: bool = False


_KEYS = [f.name for f in fields(Settings)]
_globals: dict[str, Any] = {}


def set_globals(**values: Any) -> Settings:
    """Set any of dataset_dir, backbone_dir, output_dir, seed, device, allow_downloads for this process."""
    _check_keys(values, "set_globals")
    checked = _typed(values, "set_globals")  # before anything is kept
    _globals.update(checked)
    return settings()


def settings() -> Settings:
    """The settings in force now."""
    merged = Settings()
    for source, values in (("adcore.toml", _from_toml()), ("environment", _from_environment())):
        merged = replace(merged, **_typed(values, source))
    return replace(merged, **_globals)


def user_backbone_dir() -> Path:
    """Where weights that were pulled are kept when no backbone_dir is set."""
    return Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local" / "share")) / "adcore" / "backbones"


def _from_environment() -> dict[str, Any]:
    names = {key: f"ADCORE_{key.upper()}" for key in _KEYS}
    return {key: os.environ[name] for key, name in names.items() if os.environ.get(name)}


def _from_toml() -> dict[str, Any]:
    """`adcore.toml` of the working folder, or of the nearest folder above it; relative paths are relative to the file."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        file = folder / "adcore.toml"
        if file.is_file():
            try:
                values = tomllib.loads(file.read_text(encoding="utf-8"))
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise ConfigError(f"{file} is not valid TOML: {error}") from None
            _check_keys(values, str(file))
            return {key: folder / value if key.endswith("_dir") else value for key, value in values.items()}
    return {}


def _check_keys(values: dict[str, Any], source: str) -> None:
    unknown = [key for key in values if key not in _KEYS]
    if unknown:
        raise ConfigError(f"{source}: unknown setting '{unknown[0]}'; valid ones: {', '.join(_KEYS)}")


def _typed(values: dict[str, Any], source: str) -> dict[str, Any]:
    typed = dict(values)
    for key, value in values.items():
        if key.endswith("_dir") and value is not None:
            typed[key] = Path(value).expanduser()
        elif key == "seed":
            try:
                typed[key] = int(value)
            except (TypeError, ValueError):
                raise ConfigError(f"{source}: seed must be a whole number, not {value!r}") from None
        elif key == "allow_downloads" and isinstance(value, str):
            typed[key] = value.lower() in ("1", "true", "yes", "on")
    return typed
