"""Lets the peer build its networks offline: who asks for pretrained weights gets none; they are overwritten anyway."""

import functools

import timm
import torch
from torchvision.models._api import WeightsEnum


class NoWeights(dict):
    """A state dict that loads as nothing."""


def install() -> None:
    """Patch timm and torchvision from outside; import this before the peer."""
    create = timm.create_model
    load = torch.nn.Module.load_state_dict

    @functools.wraps(create)
    def create_untrained(model_name, pretrained=False, **options):
        return create(model_name, pretrained=False, **options)

    @functools.wraps(load)
    def load_unless_none(self, state_dict, *args, **kwargs):
        return None if isinstance(state_dict, NoWeights) else load(self, state_dict, *args, **kwargs)

    timm.create_model = create_untrained
    torch.nn.Module.load_state_dict = load_unless_none
    WeightsEnum.get_state_dict = lambda self, *args, **kwargs: NoWeights()
