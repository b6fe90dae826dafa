"""Checks of the cards that a plugin registers: every field has the type of its annotation; no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from adcore.errors import PluginError

TARGET = re.compile(r"[\w.]+:\w+")


def check_card(card: Any) -> None:
    """Raise PluginError that names the card, the field, what it must be and what it is."""
    label = f"{type(card).__name__} {card.name!r}"
    hints = _hints(type(card))
    for field in fields(card):
        value = getattr(card, field.name)
        if not _fits(value, hints[field.name]):
            raise PluginError(f"{label}: {field.name} must be {field.type}, not {value!r}")
    for name in (card.name, *card.aliases):
        if not name or re.search(r"\s", name):
            raise PluginError(f"{label}: a name must be text without spaces, not {name!r}")
    target = getattr(card, "target", None)
    if target is not None and not TARGET.fullmatch(target):
        raise PluginError(f"{label}: target must be 'package.module:Class', not {target!r}")
    backbone = getattr(card, "config", {}).get("backbone")
    if not isinstance(backbone, str | None):
        raise PluginError(f"{label}: config['backbone'] must be text, not {backbone!r}")
    for key in ("epochs", "batch_size", "size_multiple"):
        if getattr(card, key, 1) < 1:
            raise PluginError(f"{label}: {key} must be at least 1, not {getattr(card, key)!r}")


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _fits(value: Any, hint: Any) -> bool:
    """Whether `value` is of the type `hint`; a list may stand for a tuple, and a whole number for a float."""
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if kind is Any:
        return True
    if kind is Literal:
        return value in parts
    if kind in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if kind is tuple:
        if not isinstance(value, list | tuple):
            return False
        items = [parts[0]] * len(value) if parts[-1] is ... else parts
        return len(items) == len(value) and all(map(_fits, value, items))
    if kind is Mapping:
        return isinstance(value, Mapping) and all(
            _fits(key, parts[0]) and _fits(entry, parts[1]) for key, entry in value.items()
        )
    if kind in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if kind is float else kind)
