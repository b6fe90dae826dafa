"""MS-CaiT, the pair of transformers that U-Flow's paper uses."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from adcore.backbones.transformer import TransformerFeatures
from adcore.errors import ConfigError
from torch import Tensor, nn


class MultiScaleCait(nn.Module):
    """MS-CaiT: CaiT-M48 on the image and CaiT-S24 on the image at half the size, maps at strides 16 and 32 (U-Flow)."""

    def __init__(self, layers: Sequence[str], weights: str = "pretrained") -> None:
        super().__init__()
        if len(layers) != 2:
            raise ConfigError(f"mcait gives two layers, one of each network, not {', '.join(layers)}")
        if weights not in ("pretrained", "random"):
            raise ConfigError('mcait is two networks: weights can be "pretrained" or "random", not a file')
        self.fine = TransformerFeatures("cait_m48_448", layers[:1], weights)
        self.coarse = TransformerFeatures("cait_s24_224", layers[1:], weights)
        self.channels = self.fine.channels + self.coarse.channels
        self.strides = [16, 32]

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> [(B, 768, H / 16, W / 16), (B, 384, H / 32, W / 32)]."""
        half = F.interpolate(images, scale_factor=0.5, mode="bicubic", align_corners=True)
        return self.fine(images) + self.coarse(half)
