"""What the few-shot methods share: turned views, layers by depth, maps with a descriptor of the whole image."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from adcore.backbones.networks import describe_network
from adcore.backbones.transformer import TransformerFeatures
from adcore.errors import ConfigError
from adcore.maps import count_seen, within
from adcore.registry import backbone_card
from einops import rearrange
from torch import Tensor, nn
from torchvision.transforms.v2.functional import InterpolationMode, center_crop, rotate


def turned(images: Tensor, views: int) -> Iterator[Tensor]:
    """(B, C, H, W) turned by 0, 1, ... `views` - 1 parts of a full circle; what comes in at the corners is reflected."""
    height, width = images.shape[-2:]
    yield images
    if views == 1:
        return
    margin = math.ceil((math.hypot(height, width) - min(height, width)) / 2)
    margins = [min(margin, side - 1) for side in (width, width, height, height)]
    wide = F.pad(images, margins, mode="reflect")
    for view in range(1, views):
        turn = rotate(wide, 360 * view / views, InterpolationMode.BILINEAR)
        yield center_crop(turn, [height, width])


def turned_seen(
    images: Tensor, seen: Sequence[np.ndarray] | None, views: int
) -> Iterator[tuple[Tensor, Sequence[np.ndarray] | None]]:
    """`turned` images, each time with the pixels that count (Batch.seen) turned alike."""
    if seen is None:
        yield from ((view, None) for view in turned(images, views))
        return
    masks = torch.tensor(np.stack(seen), dtype=images.dtype, device=images.device)
    for view in turned(torch.cat([images, masks[:, None]], 1), views):
        yield view[:, :-1].contiguous(), list((view[:, -1] > 0).cpu().numpy())


def layers_at(backbone: str, first: float, last: float) -> tuple[str, ...]:
    """Names of a vision transformer's blocks from the share `first` of its depth to the share `last`, both included.

    ConfigError for another network: its layers have to be named.
    """
    network = describe_network(backbone_card(backbone), num_classes=0)
    if not hasattr(network, "pos_embed"):
        raise ConfigError(
            f"layers: backbone '{backbone}' is no vision transformer; name its layers, such as stride8,stride16"
        )
    depth = len(network.blocks)
    begin, end = (min(round(share * depth), depth - 1) for share in (first, last))
    return tuple(f"block{i}" for i in range(begin, end + 1))


def maps_and_descriptor(extractor: nn.Module, images: Tensor) -> tuple[list[Tensor], Tensor]:
    """Maps of each layer (B, C, h, w) for images (B, 3, H, W), and a descriptor (B, C) of each image, of unit length.

    It is the last layer's class token, or the mean of its map where there is none.
    """
    if isinstance(extractor, TransformerFeatures) and extractor.prefix:
        tokens, grid = extractor.tokens(images), extractor.grid(images)
        maps = [rearrange(x[:, extractor.prefix :], "b (h w) c -> b c h w", h=grid[0]) for x in tokens]
        return maps, F.normalize(tokens[-1][:, 0], dim=1)
    maps = extractor(images)
    return maps, F.normalize(maps[-1].mean((2, 3)), dim=1)


def joined(maps: list[Tensor]) -> Tensor:
    """Maps of several layers as one (B, C, h, w): their mean where all have the same shape, else beside one another.

    Coarser maps are resized to the first one's grid.
    """
    if all(m.shape[1:] == maps[0].shape[1:] for m in maps):
        return torch.stack(maps).mean(0)
    size = maps[0].shape[-2:]
    return torch.cat([maps[0], *(F.interpolate(m, size, mode="bilinear", align_corners=False) for m in maps[1:])], 1)


def top_mean(values: Tensor, share: float, seen: np.ndarray | None = None) -> Tensor:
    """Mean of the largest `share` of (B, h, w), at least of one, where they count: (B,). `seen` as AnomalyModel.seen."""
    count = max(1, int(share * count_seen(seen, tuple(values.shape[-2:]))))
    return within(values, seen).flatten(1).topk(count, dim=1).values.mean(1)
