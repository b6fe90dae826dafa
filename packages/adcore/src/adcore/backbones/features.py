"""Feature maps from inside a backbone, convolutional or transformer, running no layer beyond the last one asked for."""

from __future__ import annotations

from collections.abc import Sequence

import timm
from torch import Tensor, nn

from adcore.backbones.build import create_backbone
from adcore.backbones.fused import Frozen
from adcore.backbones.named import NamedFeatures
from adcore.backbones.networks import describe_network
from adcore.backbones.shared import FrozenFeatures
from adcore.backbones.transformer import TransformerFeatures
from adcore.cards import BackboneCard
from adcore.errors import ConfigError
from adcore.memory import trim
from adcore.registry import backbone_card

TRANSFORMERS = {f"timm.models.{name}" for name in ("vision_transformer", "deit", "cait")}


def create_features(
    backbone: str, layers: Sequence[str], weights: str = "pretrained"
) -> FeatureExtractor | TransformerFeatures | NamedFeatures:
    """The frozen feature extractor that suits the backbone: (B, 3, H, W) -> one (B, C_i, H_i, W_i) for each layer.

    Layers of a convolutional network are called "layer2" or "stride8", those of a transformer "block0", "block1", ..., and
    those of a network that a card's target builds as in its `named_modules()`. `channels` and `strides` describe the maps
    in the order of `layers`; image sides must be multiples of `size_multiple`. ConfigError lists the layers that exist.
    """
    return _extractor(backbone_card(backbone))(backbone, layers, weights)


def _extractor(card: BackboneCard) -> type[nn.Module]:
    if card.target:
        return NamedFeatures
    known = timm.is_model(card.architecture)
    transformer = known and timm.model_entrypoint(card.architecture).__module__ in TRANSFORMERS
    return TransformerFeatures if transformer else FeatureExtractor


class FeatureExtractor(FrozenFeatures):
    """Feature maps of several layers of a convolutional backbone, running no layer beyond the last one asked for.

    Layers are called by the network's own names ("layer2") or by their stride ("stride8"). `channels` and `strides`
    describe the maps, in the order of `layers`. ConfigError lists the layers that exist.
    """

    size_multiple = 1

    def __init__(self, backbone: str, layers: Sequence[str], weights: str = "pretrained", frozen: bool = True) -> None:
        super().__init__()
        self.card: BackboneCard = backbone_card(backbone)
        self.frozen = frozen
        if _extractor(self.card) is not FeatureExtractor:
            raise ConfigError(
                f"backbone '{self.card.name}' is not one of timm's convolutional networks, of which this model takes layers; "
                "choose one, e.g. resnet18"
            )
        self.indices = _layer_indices(self.card, layers)
        self.settings = (self.card.name,)
        order = sorted(set(self.indices))  # timm returns maps from shallow to deep
        self.positions = [order.index(i) for i in self.indices]
        self.net = create_backbone(backbone, weights, frozen, features_only=True, out_indices=tuple(order))
        info = self.net.feature_info
        if isinstance(getattr(self.net, "blocks", None), nn.Sequential):  # timm keeps the blocks beyond the last layer
            last = int(info.module_name()[-1].rpartition(".")[2])
            self.net.blocks = self.net.blocks[: last + 1]
        trim()  # the rest of the network and of its file
        self.quick = Frozen(self.net) if frozen else None
        self.channels: list[int] = [info.channels()[p] for p in self.positions]
        self.strides: list[int] = [info.reduction()[p] for p in self.positions]

    def train(self, mode: bool = True) -> FeatureExtractor:
        """A frozen extractor stays in evaluation mode, so that its batch statistics never move."""
        return super().train(mode and not self.frozen)

    def warm_up(self) -> None:
        """Warm up before the first image: fuse a frozen network."""
        runs = self.source is None or self.source.lead is self
        if runs and self.quick and next(self.net.parameters()).device.type == "cpu":
            self.quick.warm_up()

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> one (B, C_i, H_i, W_i) for each layer."""
        return self.outputs(images)

    def run(self, images: Tensor) -> list[Tensor]:
        """As `forward`, in any case by the network."""
        maps = (self.quick or self.net)(images)
        return [maps[p].contiguous() for p in self.positions]


def _layer_indices(card: BackboneCard, layers: Sequence[str]) -> list[int]:
    info = describe_network(card, features_only=True).feature_info
    names = [*info.module_name()]
    strides = [f"stride{r}" for r in info.reduction()]
    indices = []
    for layer in layers:
        if layer in names:
            indices.append(names.index(layer))
        elif strides.count(layer) == 1:
            indices.append(strides.index(layer))
        else:
            raise ConfigError(
                f"backbone '{card.name}' has no layer '{layer}'; layers: {', '.join(names)} (or {', '.join(strides)})"
            )
    if not indices:
        raise ConfigError(f"no layers given for backbone '{card.name}'; layers: {', '.join(names)}")
    return indices
