"""Networks that turn an encoder round: its features from all layers to one code, and from the code back to its layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adcore.backbones.features import FeatureExtractor
from adcore.errors import ConfigError


@dataclass(frozen=True)
class Mirror:
    """How the decoder mirrors an encoder: ResNet blocks with the residual path turned round."""

    blocks: tuple[int, ...]  # in each decoder stage, coarsest first
    embedding_blocks: int  # in the one-class embedding
    expansion: int = 1  # 4: blocks of 1x1, 3x3 and 1x1 convolutions; 1: blocks of two 3x3
    wide: int = 1  # factor on the decoder's 3x3 channels, as in Wide ResNet


MIRRORS = {
    "resnet18": Mirror((2, 2, 2), 2),
    "resnet34": Mirror((3, 4, 6), 3),
    "resnet50": Mirror((3, 4, 6), 3, expansion=4),
    "wide_resnet50_2": Mirror((3, 4, 6), 3, expansion=4, wide=2),
}
# Other encoders have no mirror image. They get resnet18's decoder, and each stage a 1x1 convolution to the encoder's
# channels: features that end in no ReLU may be negative, which the blocks' outputs cannot be.
OTHER_CHANNELS = (64, 128, 256)


def mirror_of(encoder: FeatureExtractor) -> tuple[Mirror, list[int]]:
    """The mirror of an encoder and its stages' channels, finest first; ConfigError unless each layer halves the resolution."""
    strides = encoder.strides
    if any(2 * a != b for a, b in pairwise(strides)):
        raise ConfigError(
            f"layers: each must halve the resolution, strides are {strides}; for example strides 4, 8, 16"
        )
    mirror = MIRRORS.get(encoder.card.architecture)
    return (mirror, encoder.channels) if mirror else (MIRRORS["resnet18"], list(OTHER_CHANNELS))


def resizing(inputs: int, outputs: int, scale: float, kernel: int = 3) -> nn.Module:
    """A convolution that keeps (scale 1), halves (0.5) or, transposed, doubles (2) the resolution."""
    if scale == 2:
        return nn.ConvTranspose2d(inputs, outputs, 2, stride=2, bias=False)
    return nn.Conv2d(inputs, outputs, kernel, stride=round(1 / scale), padding=kernel // 2, bias=False)


class Block(nn.Module):
    """A residual block of ResNet, whose first convolution over space may also double the resolution."""

    def __init__(self, inputs: int, outputs: int, scale: float, expansion: int, wide: int = 1) -> None:
        super().__init__()
        width = outputs // expansion * wide
        if expansion == 1:
            layers = [resizing(inputs, outputs, scale)]
        else:
            layers = [resizing(inputs, width, 1, kernel=1), resizing(width, width, scale)]
        layers.append(resizing(outputs if expansion == 1 else width, outputs, 1, kernel=3 if expansion == 1 else 1))
        self.convolutions = nn.ModuleList(layers)
        self.norms = nn.ModuleList(nn.BatchNorm2d(layer.out_channels) for layer in layers)
        self.shortcut = nn.Sequential()
        if scale != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(resizing(inputs, outputs, scale, kernel=1), nn.BatchNorm2d(outputs))

    def forward(self, features: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, outputs, scale h, scale w)."""
        hidden = features
        for convolution, norm in zip(self.convolutions[:-1], self.norms[:-1], strict=True):
            hidden = F.relu(norm(convolution(hidden)), inplace=True)
        hidden = self.norms[-1](self.convolutions[-1](hidden))
        return F.relu(hidden + self.shortcut(features), inplace=True)


def stage(inputs: int, outputs: int, blocks: int, scale: float, expansion: int, wide: int = 1) -> nn.Sequential:
    """Blocks of which the first changes channels and resolution."""
    first = Block(inputs, outputs, scale, expansion, wide)
    return nn.Sequential(first, *(Block(outputs, outputs, 1, expansion, wide) for _ in range(blocks - 1)))


def fusing_layers(channels: Sequence[int], fused: Sequence[int]) -> nn.ModuleList:
    """For each layer of `channels`, the strided convolutions down to the resolution of the last one."""
    layers = nn.ModuleList()
    for i, inputs in enumerate(channels):
        widths = [inputs, *fused[i + 1 :]]
        halve = [nn.Sequential(resizing(a, b, 0.5), nn.BatchNorm2d(b), nn.ReLU()) for a, b in pairwise(widths)]
        layers.append(nn.Sequential(*halve))
    return layers


def fuse(layers: nn.ModuleList, maps: Sequence[Tensor]) -> Tensor:
    """[(B, C_l, h_l, w_l)] -> (B, C, h, w) with h, w of the last layer."""
    return torch.cat([halve(m) for halve, m in zip(layers, maps, strict=True)], 1)


class Decoder(nn.Module):
    """The student: from the code to the encoder's features, coarsest first as it computes, finest first as it returns."""

    def __init__(self, embedding: int, widths: list[int], channels: list[int], mirror: Mirror) -> None:
        super().__init__()
        inputs = [embedding, *widths[:0:-1]]
        self.stages = nn.ModuleList(
            stage(i, o, blocks, 2, mirror.expansion, mirror.wide)
            for i, o, blocks in zip(inputs, widths[::-1], mirror.blocks, strict=True)
        )
        mirrored = widths == channels
        self.heads = nn.ModuleList(
            nn.Identity() if mirrored else nn.Conv2d(w, c, 1) for w, c in zip(widths[::-1], channels[::-1], strict=True)
        )

    def forward(self, code: Tensor) -> list[Tensor]:
        """(B, embedding, h / 2, w / 2) -> [(B, C_l, h_l, w_l)] in the encoder's order."""
        restored = []
        for up, head in zip(self.stages, self.heads, strict=True):
            code = up(code)
            restored.append(head(code))
        return restored[::-1]
