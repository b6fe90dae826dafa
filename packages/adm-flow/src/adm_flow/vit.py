"""Feature maps from inside a vision transformer (DeiT, CaiT), at any image size that its patches divide."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from adcore.backbones.features import FeatureExtractor, create_backbone
from adcore.cards import BackboneCard
from adcore.errors import ConfigError
from adcore.registry import backbone_card
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn


class TransformerFeatures(nn.Module):
    """The patch tokens after one block, through the network's final norm, as a map; later blocks are not even kept.

    `layers` names that block: ("blocks.7",) runs blocks 0 to 7. `channels` and `strides` describe the map, as in
    FeatureExtractor. Image sides must be multiples of the patch.
    """

    def __init__(self, backbone: str, layers: Sequence[str], weights: str = "pretrained") -> None:
        super().__init__()
        self.card: BackboneCard = backbone_card(backbone)
        self.net = create_backbone(backbone, weights, frozen=True, num_classes=0)
        self.net.blocks = self.net.blocks[: _block_index(self.card, layers, len(self.net.blocks)) + 1]
        self.prefix = [name for name in ("cls_token", "dist_token") if getattr(self.net, name, None) is not None]
        if hasattr(self.net, "blocks_token_only"):  # CaiT's class token comes in after all patch tokens are done
            self.net.blocks_token_only, self.prefix = nn.ModuleList(), []
        self.net.patch_embed.strict_img_size = False  # the position embedding is resampled instead
        self.channels, self.strides = [self.net.embed_dim], [self.net.patch_embed.patch_size[0]]

    def train(self, mode: bool = True) -> TransformerFeatures:
        """Frozen: it stays in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> [(B, C, H / patch, W / patch)]."""
        net, patch = self.net, self.strides[0]
        height, width = images.shape[-2] // patch, images.shape[-1] // patch
        if (height * patch, width * patch) != tuple(images.shape[-2:]):
            raise ConfigError(
                f"backbone '{self.card.name}' cuts images into patches of {patch} pixels; image sides must be multiples "
                f"of {patch}, got {images.shape[-2]} x {images.shape[-1]}"
            )
        tokens = net.patch_embed(images)  # (B, N, C)
        prefix = [getattr(net, name).expand(len(images), -1, -1) for name in self.prefix]  # each (B, 1, C)
        positions = resample_abs_pos_embed(net.pos_embed, [height, width], num_prefix_tokens=len(prefix))
        tokens = torch.cat([*prefix, tokens], 1) + positions
        for block in net.blocks:
            tokens = block(tokens)
        tokens = net.norm(tokens)[:, len(prefix) :]
        return [tokens.transpose(1, 2).reshape(len(images), -1, height, width)]


def create_features(backbone: str, layers: Sequence[str], weights: str) -> FeatureExtractor | TransformerFeatures:
    """The frozen feature extractor that suits the backbone."""
    transformer = backbone_card(backbone).architecture.startswith(("cait_", "deit_"))
    return (TransformerFeatures if transformer else FeatureExtractor)(backbone, layers, weights)


def _block_index(card: BackboneCard, layers: Sequence[str], depth: int) -> int:
    match = re.fullmatch(r"blocks\.(\d+)", layers[0]) if len(layers) == 1 else None
    if match is None or int(match[1]) >= depth:
        raise ConfigError(
            f"backbone '{card.name}' gives one layer, blocks.0 to blocks.{depth - 1}, not {', '.join(layers) or 'none'}"
        )
    return int(match[1])


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
