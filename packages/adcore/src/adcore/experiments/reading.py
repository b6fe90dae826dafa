"""Reading a conditions file: JSON (comments allowed) or YAML, in any of the known forms, to (name, config) pairs."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adcore.errors import ConfigError

_COMMENT = re.compile(r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
_LAST_COMMA = re.compile(r'("(?:\\.|[^"\\])*")|,(?=\s*[}\]])')


@dataclass(frozen=True)
class RawCondition:
    """A condition of the file; only its form is checked."""

    name: str
    config: dict[str, Any] = field(default_factory=dict)
    description: str = ""


def read_conditions(path: Path) -> list[RawCondition]:
    """The conditions of a file, `base` merged under each and `grid` expanded; ConfigError for another form."""
    data = _parse(path)
    if not isinstance(data, dict):
        raise ConfigError(f'{path}: expected {{"experiment_conditions": [...]}} or {{"NAME": {{...}}}}')
    data = dict(data)
    base, grid = data.pop("base", {}), data.pop("grid", {})
    if not isinstance(base, dict) or not isinstance(grid, dict):
        raise ConfigError(f"{path}: 'base' holds settings, and 'grid' lists of values by setting")
    if "experiment_conditions" in data:
        entries = data.pop("experiment_conditions")
        if data:
            raise ConfigError(f"{path}: unknown key '{next(iter(data))}' beside experiment_conditions, base and grid")
        if not isinstance(entries, list):
            raise ConfigError(f"{path}: experiment_conditions must be a list")
        named = [(f"condition_{number}", entry) for number, entry in enumerate(entries)]
    else:
        named = list(data.items())
    conditions = [_condition(path, name, entry, base) for name, entry in named]
    conditions += _expand(path, grid, base)
    if not conditions:
        raise ConfigError(f"{path}: no condition; add some to experiment_conditions, or a grid")
    return conditions


def _condition(path: Path, name: str, entry: Any, base: dict[str, Any]) -> RawCondition:
    if not isinstance(entry, dict):
        raise ConfigError(f"{path}: condition '{name}' must hold settings, not {entry!r}")
    entry = dict(entry)
    name, description = str(entry.pop("name", name)), str(entry.pop("description", ""))
    config = entry.pop("config", None)
    if config is None:
        config, entry = entry, {}
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: condition '{name}': config must hold settings, not {config!r}")
    if entry:
        raise ConfigError(
            f"{path}: condition '{name}': unknown key '{next(iter(entry))}' beside name, description, config"
        )
    return RawCondition(name, {**base, **config}, description)


def _expand(path: Path, grid: dict[str, Any], base: dict[str, Any]) -> list[RawCondition]:
    """The cross product of the grid's lists; a condition is called by its values, but for the seed."""
    if not grid:
        return []
    wrong = [key for key, values in grid.items() if not isinstance(values, list) or not values]
    if wrong:
        raise ConfigError(f"{path}: grid: '{wrong[0]}' must be a list of values")
    expanded = []
    for values in itertools.product(*grid.values()):
        config = dict(zip(grid, values, strict=True))
        name = "_".join(_word(value) for key, value in config.items() if key != "seed") or "grid"
        expanded.append(RawCondition(name, {**base, **config}))
    return expanded


def _word(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return re.sub(r"[^\w.+-]+", "-", text).strip("-")


def _parse(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: cannot be read as UTF-8 text: {getattr(error, 'strerror', None) or error}"
        ) from None
    if path.suffix.lower() in (".yaml", ".yml"):
        try:
            import yaml
        except ImportError:
            raise ConfigError(f'{path}: YAML needs one more package: pip install "adcore[experiments]"') from None
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    plain = _COMMENT.sub(lambda m: m[1] or re.sub(r"[^\n]", " ", m[0]), text)  # keeps the positions in messages right
    plain = _LAST_COMMA.sub(lambda m: m[1] or " ", plain)
    try:
        return json.loads(plain, object_pairs_hook=lambda pairs: _unique(path, pairs))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}: not valid JSON: {error}") from None


def _unique(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice:
        raise ConfigError(f"{path}: '{twice}' stands twice in one place; rename or remove one")
    return dict(pairs)
