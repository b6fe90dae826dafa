"""Building networks from backbone cards, with weights drawn from a seed or without memory for weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import RLock
from typing import Any

import timm
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from adcore.cards import BackboneCard
from adcore.errors import ConfigError
from adcore.registry import backbone_builder, card_origin

_drawing = RLock()  # torch's global random state is one for all threads


def create_network(card: BackboneCard, seed: int | None = None, **options: Any) -> nn.Module:
    """The network of a card, from timm or from the card's target, without pretrained weights.

    `options` come on top of the card's own. With a `seed` weights are drawn from it, and torch's global random state stays
    as it was. Raises ConfigError when there is no such architecture.
    """
    build = backbone_builder(card) if card.target else _timm_builder(card)
    with _drawing, torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        return build(**{**card.options, **options})


def _timm_builder(card: BackboneCard) -> Callable[..., nn.Module]:
    if not timm.is_model(card.architecture):
        origin = card_origin(card)
        raise ConfigError(
            f"backbone '{card.name}' of plugin '{origin.plugin}' ({origin}) names the architecture '{card.architecture}', "
            f"which timm {timm.__version__} does not have; correct the card, or install the timm that it needs"
        )
    return partial(timm.create_model, card.architecture, pretrained=False)


_DRAWING = {"normal_", "uniform_", "fill_", "zero_", "erfinv_", "mul_", "add_", "clamp_"}  # what torch.nn.init calls


class _NoDrawing(TorchFunctionMode):
    """Skips drawing weights that have no memory: torch would import its compiler for it, and it would take most of the time."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in _DRAWING:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


@contextmanager
def without_memory() -> Iterator[None]:
    """Inside this context, networks are built without memory for their weights."""
    with torch.device("meta"), _NoDrawing():
        yield


def describe_network(card: BackboneCard, **options: Any) -> nn.Module:
    """The same network without memory for its weights: for its names, shapes and counts."""
    with without_memory():
        return create_network(card, **options)
