"""Feature maps of a network that timm does not know, taken at its named submodules."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.feature_extraction import create_feature_extractor

from adcore.backbones.build import create_backbone
from adcore.backbones.shared import FrozenFeatures
from adcore.errors import ConfigError
from adcore.registry import backbone_card

PROBE = 224  # about the side of the image that shows how many channels a layer has, and its stride


class NamedFeatures(FrozenFeatures):
    """Outputs (B, C, h, w) of submodules of a frozen network, running nothing beyond the last one asked for.

    Layers are names as in `named_modules()`. torch.fx must be able to trace the network. A network that takes only some sizes
    says so by an attribute `size_multiple`. ConfigError names what does not work.
    """

    def __init__(self, backbone: str, layers: Sequence[str], weights: str = "pretrained") -> None:
        super().__init__()
        self.card, self.indices = backbone_card(backbone), list(layers)
        self.settings = (self.card.name,)
        net = create_backbone(backbone, weights)
        known = [name for name, _ in net.named_modules() if name]
        if wrong := [layer for layer in layers if layer not in known] or [""] * (not layers):
            raise ConfigError(f"backbone '{self.card.name}' has no layer '{wrong[0]}'; layers: {', '.join(known)}")
        self.size_multiple: int = getattr(net, "size_multiple", 1)
        try:
            self.net = create_feature_extractor(net, {layer: layer for layer in layers}).eval()
            side = max(PROBE // self.size_multiple, 1) * self.size_multiple
            with torch.no_grad():
                maps = self.forward(torch.zeros(1, 3, side, side))
            self.channels, self.strides = [m.shape[1] for m in maps], [round(side / m.shape[2]) for m in maps]
        except Exception as error:  # of torch.fx, or of the network itself
            raise ConfigError(
                f"backbone '{self.card.name}' ({self.card.target}) gives no maps of the layers {', '.join(layers)}: "
                f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            ) from error
        self.net.weights_info = net.weights_info

    def train(self, mode: bool = True) -> NamedFeatures:
        """Frozen: it stays in evaluation mode."""
        return super().train(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> one (B, C_i, H_i, W_i) for each layer."""
        return self.outputs(images)

    def run(self, images: Tensor) -> list[Tensor]:
        """As `forward`, in any case by the network."""
        maps = self.net(images)
        return [maps[layer].contiguous() for layer in self.indices]
