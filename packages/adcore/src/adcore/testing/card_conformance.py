"""The checks of a model's card and settings, which build no model: enough for a card that differs from another in numbers."""

from __future__ import annotations

import inspect
from typing import ClassVar

import pytest

from adcore.cards import load_target
from adcore.config import config_fields, describe_config
from adcore.errors import ConfigError
from adcore.model import AnomalyModel
from adcore.plugins import Origin
from adcore.registry import create_model, model_card, model_origin
from adcore.testing.base import Conformance, check_settings


class CardConformance(Conformance):
    """Inherit, and name the model."""

    model: ClassVar[str] = ""

    def origin(self) -> Origin:
        """The plugin that registered the model."""
        return model_origin(self.model)

    def test_card_is_complete(self) -> None:
        """Users read the card in `adcore info` and in the model table.

        Fails on an empty family, title, paper or summary, a year that is none, an image size that is no multiple of
        size_multiple, or a target that is not "module:Class" of an AnomalyModel. Fix: fill the field in plugin.py.
        """
        card = model_card(self.model)
        for field in ("family", "title", "paper", "summary"):
            assert getattr(card, field).strip(), f"the card's {field} is empty"
        assert 1950 <= card.year <= 2100, "the card's year is not a year"
        size = card.crop_size or card.image_size
        sides = size if isinstance(size, list | tuple) else [size]
        wrong = [side for side in sides if side % card.size_multiple]
        assert not wrong, f"the card's image size {wrong[0]} is no multiple of its size_multiple {card.size_multiple}"
        model_class = load_target(card.target)
        assert issubclass(model_class, AnomalyModel), f"{card.target} is no AnomalyModel"
        any_channels = "channels" in config_fields(model_class)
        assert any_channels == (card.channels == "any"), (
            f"the card says channels={card.channels!r}, but the model has {'a' if any_channels else 'no'} setting `channels`"
        )

    def test_override_keys_are_checked(self) -> None:
        """A misspelt setting has to be refused by name, never swallowed.

        Fails when the class takes **kwargs or *args, or accepts an unknown key. Fix: take every setting as a named keyword
        argument of __init__.
        """
        parameters = inspect.signature(load_target(model_card(self.model).target).__init__).parameters.values()
        loose = [str(p) for p in parameters if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
        assert not loose, f"__init__ takes {', '.join(loose)}, which swallows misspelt settings"
        with pytest.raises(ConfigError, match="no_such_setting"):
            create_model(self.model, no_such_setting=1)

    def test_settings_are_documented(self) -> None:
        """Settings are shown by `adcore info` and checked against their annotations.

        Fails on a setting without a type, a default or a description. Fix: write it as
        `name: Annotated[int, Field(ge=1, description="...")] = 3`.
        """
        card = model_card(self.model)
        model_class = load_target(card.target)
        meanings = {name: meaning for name, _, _, meaning in describe_config(card, model_class)}
        check_settings(config_fields(model_class), meanings, card.config)
