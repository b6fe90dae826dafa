"""Feature maps and tokens from inside a vision transformer (ViT, DINOv2, DeiT, CaiT), at any size its patches divide."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from adcore.backbones.build import create_backbone
from adcore.backbones.networks import describe_network
from adcore.backbones.shared import FrozenFeatures
from adcore.cards import BackboneCard
from adcore.errors import ConfigError
from adcore.registry import backbone_card

PREFIX = ("cls_token", "dist_token", "reg_token")  # what a network may put before its patch tokens, in this order


class TransformerFeatures(FrozenFeatures):
    """Patch tokens after some blocks of a frozen transformer, as maps; later blocks are not even built.

    Layers are called "block0", "block1", ... (or "blocks.0", "0"). With `norm` maps pass through the network's final norm.
    Position embeddings are resampled to the image's grid, bicubic, with `antialias` or without; None: as the card says.
    `channels` and `strides` describe the maps, in the order of `layers`. Image sides must be multiples of `size_multiple`.
    ConfigError for a layer that does not exist and for other image sizes.
    """

    def __init__(
        self,
        backbone: str,
        layers: Sequence[str],
        weights: str = "pretrained",
        norm: bool = True,
        antialias: bool | None = None,
    ) -> None:
        super().__init__()
        self.card: BackboneCard = backbone_card(backbone)
        depth = len(describe_network(self.card, num_classes=0).blocks)
        self.indices = [_block_index(self.card, layer, depth) for layer in layers]
        if not layers:
            raise ConfigError(f"no layers given for backbone '{self.card.name}'; layers: block0 to block{depth - 1}")
        self.antialias = self.card.antialias if antialias is None else antialias
        self.settings = (self.card.name, norm, self.antialias)
        self.net = create_backbone(backbone, weights, frozen=True, num_classes=0, depth=max(self.indices) + 1)
        if not norm:
            self.net.norm = nn.Identity()
        self.prefix_tokens = [name for name in PREFIX if getattr(self.net, name, None) is not None]
        if hasattr(self.net, "blocks_token_only"):  # CaiT's class token comes in after all patch tokens are done
            self.net.blocks_token_only, self.prefix_tokens = nn.ModuleList(), []
        self.net.patch_embed.strict_img_size = False  # the position embedding is resampled instead
        self.patch: int = self.net.patch_embed.patch_size[0]
        self.size_multiple = self.patch
        self.channels: list[int] = [self.net.embed_dim] * len(layers)
        self.strides: list[int] = [self.patch] * len(layers)
        # of the last image: a constant of an exported graph, since other runtimes resample differently
        self._positions: Tensor | None = None

    @property
    def prefix(self) -> int:
        """Number R of class and register tokens before the patch tokens."""
        return sum(getattr(self.net, name).shape[1] for name in self.prefix_tokens)

    def train(self, mode: bool = True) -> TransformerFeatures:
        """Frozen: it stays in evaluation mode."""
        return super().train(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> one (B, C, H / patch, W / patch) for each layer."""
        grid = self.grid(images)
        return [x[:, self.prefix :].transpose(1, 2).unflatten(2, grid).contiguous() for x in self.tokens(images)]

    def grid(self, images: Tensor) -> tuple[int, int]:
        """Rows and columns of patches in images (B, 3, H, W); ConfigError when patches do not divide them."""
        height, width = images.shape[-2:]
        if height % self.patch or width % self.patch:
            near = " x ".join(str(max(1, round(side / self.patch)) * self.patch) for side in (height, width))
            raise ConfigError(
                f"backbone '{self.card.name}' cuts images into patches of {self.patch} pixels: image size {height} x {width} "
                f"is not a multiple of {self.patch}; nearest: {near}"
            )
        return height // self.patch, width // self.patch

    def tokens(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> tokens (B, R + N, C) of each layer: R class and register tokens, then N patches."""
        return self.outputs(images)

    @torch.no_grad()
    def run(self, images: Tensor) -> list[Tensor]:
        """As `tokens`, in any case by the network."""
        net, grid = self.net, self.grid(images)
        prefix = [getattr(net, name).expand(images.shape[0], -1, -1) for name in self.prefix_tokens]
        patches = net.patch_embed(images)  # (B, N, C)
        learned = net.patch_embed.grid_size
        placed = net.pos_embed.shape[1] - learned[0] * learned[1]  # prefix tokens that have a position too
        if not torch.compiler.is_compiling() or self._positions is None:
            self._positions = resample_abs_pos_embed(
                net.pos_embed, [*grid], [*learned], num_prefix_tokens=placed, antialias=self.antialias
            )
        positions = self._positions
        placed_tokens = prefix if placed else []
        x = torch.cat([*placed_tokens, patches], 1) + positions
        x = x if placed else torch.cat([*prefix, x], 1)
        x, found = getattr(net, "norm_pre", nn.Identity())(x), {}
        for i, block in enumerate(net.blocks):
            x = block(x)
            if i in self.indices:
                found[i] = net.norm(x)
        return [found[i] for i in self.indices]


def _block_index(card: BackboneCard, layer: str, depth: int) -> int:
    match = re.fullmatch(r"(?:blocks?\.?)?(\d+)", str(layer))
    if match is None or int(match[1]) >= depth:
        raise ConfigError(f"backbone '{card.name}' has no layer '{layer}'; layers: block0 to block{depth - 1}")
    return int(match[1])
