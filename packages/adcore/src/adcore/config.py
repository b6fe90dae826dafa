"""A model's configuration: the keyword arguments of its class, checked against their annotations by pydantic."""

from __future__ import annotations

import inspect
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, Field, ValidationError, create_model
from pydantic.fields import FieldInfo

from adcore.cards import ModelCard
from adcore.errors import ConfigError


def config_fields(model_class: type) -> dict[str, tuple[Any, Any]]:
    """(annotation, default) of every keyword argument of `model_class`; a missing default is `...`."""
    hints = get_type_hints(model_class.__init__, include_extras=True)
    parameters = list(inspect.signature(model_class.__init__).parameters.values())[1:]
    return {
        p.name: (hints.get(p.name, Any), ... if p.default is p.empty else p.default)
        for p in parameters
        if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
    }


def checked_config(card: ModelCard, model_class: type, overrides: dict[str, Any]) -> dict[str, Any]:
    """Card defaults with `overrides` on top, every key known and every value of its type.

    Raises ConfigError that names each wrong key with the valid ones, or each wrong value with what was expected.
    """
    fields = config_fields(model_class)
    unknown = [key for key in overrides if key not in fields]
    if unknown:
        raise ConfigError(unknown_key_message(card.name, unknown, sorted(fields)))
    schema = create_model(
        model_class.__name__,
        __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=True, protected_namespaces=()),
        **{name: _field(annotation, default) for name, (annotation, default) in fields.items()},
    )
    try:
        checked = schema(**{**card.config, **{key: _listed(fields[key][0], value) for key, value in overrides.items()}})
    except ValidationError as error:
        raise ConfigError(f"{card.name}: {describe_errors(error)}") from None
    return {name: getattr(checked, name) for name in fields}


def describe_errors(error: ValidationError) -> str:
    """All faults of a validation on one line: key, what is wrong, what was given."""
    parts = []
    for fault in error.errors():
        key = ".".join(str(part) for part in fault["loc"]) or "value"
        parts.append(f"{key}: {fault['msg'][0].lower()}{fault['msg'][1:]} (got {fault['input']!r})")
    return "; ".join(parts)


def unknown_key_message(owner: str, unknown: list[str], valid: list[str]) -> str:
    """One line that names the unknown keys, the nearest valid ones, and all valid ones."""
    from adcore.registry import suggest

    hints = "".join(suggest(key, valid) for key in unknown[:1])
    names = ", ".join(f"'{key}'" for key in unknown)
    return f"{owner} has no setting {names}{hints or ';'} valid ones: {', '.join(valid)}"


def describe_config(card: ModelCard, model_class: type) -> list[tuple[str, str, Any, str]]:
    """Rows (key, type, default, meaning) for `adcore info` and the documentation."""
    rows = []
    for name, (annotation, default) in config_fields(model_class).items():
        field = FieldInfo.from_annotation(annotation)
        kind = getattr(annotation, "__origin__", annotation) if hasattr(annotation, "__metadata__") else annotation
        label = kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")
        rows.append((name, label, card.config.get(name, default), field.description or ""))
    return rows


def _listed(annotation: Any, value: Any) -> Any:
    """`--set layers=stride8`: one value where the annotation allows tuples only is a tuple of that value."""
    kind = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    kinds = [kind] if get_origin(kind) not in (Union, UnionType) else [k for k in get_args(kind) if k is not type(None)]
    single = isinstance(value, str | int | float) and all(get_origin(kind) is tuple for kind in kinds)
    return (value,) if single else value


def _field(annotation: Any, default: Any) -> tuple[Any, Any]:
    return (annotation, Field()) if default is ... else (annotation, default)
