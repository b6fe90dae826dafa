"""Settings of models and dataset readers: the keyword arguments of a class, checked against their annotations by pydantic."""

from __future__ import annotations

import inspect
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, create_model, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from adcore.cards import ModelCard
from adcore.errors import ConfigError, suggest


class CheckedModel(BaseModel):
    """Settings whose keys must be known, and whose numbers are finite and never true or false."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, arbitrary_types_allowed=True, protected_namespaces=()
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_bool_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        types = _types_in(cls.model_fields[info.field_name].annotation)
        values = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(one, bool) for one in values) and bool not in types and types & {int, float}:
            raise PydanticCustomError("bool_as_number", "input should be a number, not true or false")
        return value


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
    listed = {key: _listed(fields[key][0], value) if key in fields else value for key, value in overrides.items()}
    return _checked(card.name, model_class, fields, {**card.config, **listed})


def option_fields(reader_class: type) -> dict[str, tuple[Any, Any]]:
    """(annotation, default) of every option of a dataset reader: its keyword arguments but for `root`."""
    return {name: field for name, field in config_fields(reader_class).items() if name != "root"}


def checked_options(name: str, reader_class: type, options: dict[str, Any]) -> dict[str, Any]:
    """The `options` of the dataset `name`, every key known and every value of its type; ConfigError as for a model."""
    fields = option_fields(reader_class)
    listed = {key: _listed(fields[key][0], value) if key in fields else value for key, value in options.items()}
    checked = _checked(f"dataset '{name}'", reader_class, fields, listed, "option")
    return {key: checked[key] for key in options}


def _checked(
    owner: str, kind: type, fields: dict[str, tuple[Any, Any]], values: dict[str, Any], word: str = "setting"
) -> dict[str, Any]:
    unknown = [key for key in values if key not in fields]
    if unknown:
        raise ConfigError(unknown_key_message(owner, unknown, sorted(fields), word))
    schema = create_model(
        kind.__name__,
        __base__=CheckedModel,
        **{name: _field(annotation, default) for name, (annotation, default) in fields.items()},
    )
    try:
        checked = schema(**values)
    except ValidationError as error:
        raise ConfigError(f"{owner}: {describe_errors(error)}") from None
    return {name: getattr(checked, name) for name in fields}


def describe_errors(error: ValidationError) -> str:
    """All errors of a validation on one line: key, what is wrong, what was given."""
    parts = []
    for entry in error.errors():
        key = ".".join(str(part) for part in entry["loc"]) or "value"
        parts.append(f"{key}: {entry['msg'][0].lower()}{entry['msg'][1:]} (got {entry['input']!r})")
    return "; ".join(parts)


def unknown_key_message(owner: str, unknown: list[str], valid: list[str], word: str = "setting") -> str:
    """One line that names the unknown keys, the nearest valid ones, and all valid ones."""
    hints = "".join(suggest(key, valid) for key in unknown[:1])
    names = ", ".join(f"'{key}'" for key in unknown)
    return f"{owner} has no {word} {names}{hints or ';'} valid ones: {', '.join(valid) or 'none'}"


def describe_config(card: ModelCard, model_class: type) -> list[tuple[str, str, Any, str]]:
    """Rows (key, type, default, meaning) for `adcore info` and the documentation."""
    rows = describe_fields(config_fields(model_class))
    return [(name, label, card.config.get(name, default), meaning) for name, label, default, meaning in rows]


def describe_fields(fields: dict[str, tuple[Any, Any]]) -> list[tuple[str, str, Any, str]]:
    """Rows (key, type, default, meaning) of keyword arguments."""
    rows = []
    for name, (annotation, default) in fields.items():
        field = FieldInfo.from_annotation(annotation)
        kind = getattr(annotation, "__origin__", annotation) if hasattr(annotation, "__metadata__") else annotation
        label = kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")
        rows.append((name, label, default, field.description or ""))
    return rows


def _listed(annotation: Any, value: Any) -> Any:
    """`--set layers=stride8`: one value where the annotation allows tuples only is a tuple of that value."""
    kind = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    kinds = [kind] if get_origin(kind) not in (Union, UnionType) else [k for k in get_args(kind) if k is not type(None)]
    single = isinstance(value, str | int | float) and all(get_origin(kind) is tuple for kind in kinds)
    return (value,) if single else value


def _types_in(annotation: Any) -> set[Any]:
    """The plain types that an annotation such as `Annotated[int, ...] | None` is made of."""
    return {annotation}.union(*map(_types_in, get_args(annotation)))


def _field(annotation: Any, default: Any) -> tuple[Any, Any]:
    return (annotation, Field()) if default is ... else (annotation, default)
