"""Building a backbone with its weights."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from adcore.backbones.networks import create_network, describe_network
from adcore.backbones.resolve import WeightsFile, resolve
from adcore.errors import WeightsError
from adcore.registry import backbone_card
from adcore.settings import settings

# how weights are found: as the setting says (and loaded, or not), by the backbone's name alone, or not at all
_source: ContextVar[Literal["setting", "found", "name", "nowhere"]] = ContextVar("source", default="setting")


@dataclass(frozen=True)
class WeightsInfo:
    """What a frozen backbone was made from; an artifact refers to it, or carries the weights themselves."""

    backbone: str
    source: str  # file name, or "random"
    sha256: str | None  # of the file; None for random weights
    inside: bool = False  # an artifact has to carry the weights: they are random, or of a file that the user named


@contextmanager
def stored_weights(inside: bool) -> Iterator[None]:
    """Inside this context, backbones are built for a state that is loaded afterwards: a path in a setting is never opened.

    With `inside` the state holds the weights, and none are looked for; else they are found by the backbone's name.
    """
    token = _source.set("nowhere" if inside else "name")
    try:
        yield
    finally:
        _source.reset(token)


@contextmanager
def weights_only_found() -> Iterator[None]:
    """Inside this context, the weights of backbones are looked for as the settings say, and not loaded."""
    token = _source.set("found")
    try:
        yield
    finally:
        _source.reset(token)


def create_backbone(name: str, weights: str = "pretrained", frozen: bool = True, **timm_options: Any) -> nn.Module:
    """A network with the weights of backbone `name`.

    `weights` is "pretrained" (resolved offline first), "random" (seeded, only when asked for by name) or a file path.
    A frozen network keeps `weights_info`, takes no gradients and stays in evaluation mode under its extractor.
    Raises WeightsError when weights are missing or do not fit.
    """
    card = backbone_card(name)
    seed = settings().seed if frozen else None  # a student is drawn like every other trained layer
    net = create_network(card, seed, **timm_options)
    if weights == "random" or _source.get() == "nowhere":
        info = WeightsInfo(card.name, "random", None, inside=True)
    else:
        named = weights != "pretrained" and _source.get() in ("setting", "found")
        found = resolve(name, weights if named else None)
        if _source.get() != "found":
            load_weights(net, found)
        info = WeightsInfo(card.name, found.path.name, found.sha256, inside=named)
    if frozen:
        net.requires_grad_(False).eval()
        net.weights_info = info
    return net


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors of a weights file, without unpickling objects; WeightsError when it holds anything else."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each format has errors of its own; all mean the same to the user
        raise WeightsError(f"{path} is not a readable weights file: {str(error).splitlines()[0]}") from None
    for key in ("state_dict", "model", "teacher"):
        if isinstance(state.get(key), dict):
            state = state[key]
    return {key.removeprefix("module."): value for key, value in state.items() if isinstance(value, Tensor)}


def load_weights(net: nn.Module, weights: WeightsFile) -> None:
    """Load a weights file into `net`, which may be a part of the full architecture; every key of `net` must be found."""
    state = read_state(weights.path)
    wanted = net.state_dict()
    if weights.card.key_order and not wanted.keys() <= state.keys():
        state = _renamed_by_order(state, weights)
    adapt = getattr(sys.modules[type(net).__module__], "checkpoint_filter_fn", None)
    if adapt is not None and not wanted.keys() <= state.keys():
        state = adapt(state, net)
    missing = [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
    wrong = [key for key in wanted if key in state and state[key].shape != wanted[key].shape]
    if missing or wrong:
        example = f"'{missing[0]}' is missing" if missing else f"'{wrong[0]}' has another shape"
        raise WeightsError(
            f"{weights.path} does not fit backbone '{weights.card.name}': {len(missing) + len(wrong)} of "
            f"{len(wanted)} tensors, e.g. {example}; get the file from {weights.card.source}"
        )
    net.load_state_dict({key: state[key] for key in wanted if key in state}, strict=False)


def _renamed_by_order(state: dict[str, Tensor], weights: WeightsFile) -> dict[str, Tensor]:
    def kept(keys: Iterable[str]) -> list[str]:  # old files lack these counters, which prediction does not use
        return [key for key in keys if not key.endswith("num_batches_tracked")]

    names = kept(describe_network(weights.card).state_dict())
    keys = kept(state)
    if len(names) != len(keys):
        raise WeightsError(f"{weights.path} holds {len(keys)} tensors, backbone '{weights.card.name}' has {len(names)}")
    return {name: state[key] for name, key in zip(names, keys, strict=True)}
