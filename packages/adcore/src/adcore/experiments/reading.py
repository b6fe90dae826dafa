"""Reading a conditions file: JSON (comments allowed) or YAML, in any of the known forms, to (name, config) pairs."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adcore.errors import ConfigError

_COMMENT = re.compile(r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?(?:\*/|\Z)', re.DOTALL)
_LAST_COMMA = re.compile(r'("(?:\\.|[^"\\])*")|,(?=\s*[}\]])')
_MERGE = "tag:yaml.org,2002:merge"  # of the key <<
LINE = 1000  # characters of a message
TWICE = "; write each backslash of a path twice, or /"
MAX_BYTES, MAX_VALUES, MAX_DEPTH, MAX_RUNS = 2**22, 100_000, 20, 10_000  # far more than a file of conditions needs


@dataclass(frozen=True)
class RawCondition:
    """A condition of the file; only its form is checked."""

    name: str
    config: dict[str, Any] = field(default_factory=dict)
    description: str = ""


def read_conditions(path: Path) -> list[RawCondition]:
    """The conditions of a file, `base` merged under each and `grid` expanded; ConfigError for another form."""
    data = _parse(path)
    _check_values(path, data)
    if not isinstance(data, dict):
        raise ConfigError(f'{path}: expected {{"experiment_conditions": [...]}} or {{"NAME": {{...}}}}')
    data = dict(data)
    base, grid = data.pop("base", {}), data.pop("grid", {})
    if not isinstance(base, dict) or not isinstance(grid, dict):
        raise ConfigError(f"{path}: 'base' holds settings, and 'grid' lists of values by setting")
    if "experiment_conditions" in data:
        entries = data.pop("experiment_conditions")
        if data:
            raise ConfigError(
                f"{path}: unknown key '{short(next(iter(data)))}' beside experiment_conditions, base and grid"
            )
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
        raise ConfigError(f"{path}: condition '{short(name)}' must hold settings, not {short(repr(entry))}")
    entry = dict(entry)
    name, description = str(entry.pop("name", name)), str(entry.pop("description", ""))
    config = entry.pop("config", None)
    if config is None:
        config, entry = entry, {}
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: condition '{short(name)}': config must hold settings, not {short(repr(config))}")
    if entry:
        raise ConfigError(
            f"{path}: condition '{short(name)}': unknown key '{short(next(iter(entry)))}' beside name, description, config"
        )
    return RawCondition(name, {**base, **config}, description)


def _expand(path: Path, grid: dict[str, Any], base: dict[str, Any]) -> list[RawCondition]:
    """The cross product of the grid's lists; a condition is called by its values, but for the seed."""
    if not grid:
        return []
    wrong = [key for key, values in grid.items() if not isinstance(values, list) or not values]
    if wrong:
        raise ConfigError(f"{path}: grid: '{short(wrong[0])}' must be a list of values")
    count = math.prod(map(len, grid.values()))
    if count > MAX_RUNS:
        raise ConfigError(f"{path}: grid: {count} combinations are too many; the limit is {MAX_RUNS}")
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
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_BYTES // 2**20} MB; a conditions file is smaller")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path}: cannot be read as UTF-8 text: {getattr(error, 'strerror', None) or error}"
        ) from None
    kind = "YAML" if path.suffix.lower() in (".yaml", ".yml") else "JSON"
    try:
        return _parse_yaml(path, text) if kind == "YAML" else _parse_json(path, text)
    except RecursionError:
        raise ConfigError(f"{path}: not valid {kind}: nested too deeply") from None
    except ValueError as error:  # among them numbers of too many digits, and impossible dates
        hint = TWICE if "escape" in str(error) else ""
        raise ConfigError(f"{path}: not valid {kind}: {short(error)}{hint}") from None


def _parse_yaml(path: Path, text: str) -> Any:
    try:
        import yaml
    except ImportError:
        raise ConfigError(f'{path}: YAML needs one more package: pip install "adcore[experiments]"') from None

    class Loader(yaml.SafeLoader):
        """Refuses a key that stands twice in one place, as for JSON."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != _MERGE]
            _refuse_twice(path, [key for key in keys if isinstance(key, str)])
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(text, Loader)
    except (yaml.YAMLError, TypeError, AttributeError) as error:  # of values that do not fit their tag, too
        hint = TWICE if "escape" in str(error) else ""
        raise ConfigError(f"{path}: not valid YAML: {short(error)}{hint}") from None


def _parse_json(path: Path, text: str) -> Any:
    plain = _COMMENT.sub(lambda m: m[1] or re.sub(r"[^\n]", " ", m[0]), text)  # keeps the positions in messages right
    plain = _LAST_COMMA.sub(lambda m: m[1] or " ", plain)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        _refuse_twice(path, [key for key, _ in pairs])
        return dict(pairs)

    return json.loads(plain, object_pairs_hook=unique)


def _refuse_twice(path: Path, keys: list[str]) -> None:
    twice = next((key for key, count in Counter(keys).items() if count > 1), None)
    if twice is not None:
        raise ConfigError(f"{path}: {short(repr(twice))} is given twice; rename or remove one")


def _check_values(path: Path, data: Any) -> None:
    """Refuse what no setting can be, or what a few bytes of YAML blow up to; without recursion, as anchors may be cyclic."""
    waiting, seen = [(data, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        seen += 1
        if depth > MAX_DEPTH:
            raise ConfigError(f"{path}: nested more than {MAX_DEPTH} levels deep")
        if seen > MAX_VALUES:
            raise ConfigError(f"{path}: more than {MAX_VALUES} values; split the file")
        if isinstance(value, dict):
            wrong = next((key for key in value if not isinstance(key, str)), None)
            if wrong is not None:
                raise ConfigError(f"{path}: the key {short(repr(wrong))} must be text; put it into quotes")
            waiting += [(one, depth + 1) for pair in value.items() for one in pair]
        elif isinstance(value, list):
            waiting += [(one, depth + 1) for one in value]
        elif isinstance(value, str):
            if not value.isprintable() and re.search(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]", value):
                raise ConfigError(f"{path}: {short(repr(value))} holds characters that are not text{TWICE}")
        elif isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{path}: {value} is not a finite number")
        elif isinstance(value, int) and value.bit_length() > 63:
            raise ConfigError(f"{path}: a whole number has more than 63 bits; no setting takes that")
        elif not isinstance(value, int | float | None):
            raise ConfigError(f"{path}: {short(repr(value))} is not a JSON value; put it into quotes")


def short(text: object, length: int = 200) -> str:
    """One line of at most `length` characters."""
    line = " ".join(str(text).split())
    return line if len(line) <= length else f"{line[: length - 3]}..."
