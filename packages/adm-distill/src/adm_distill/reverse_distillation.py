"""Reverse Distillation: a decoder restores the teacher's features from a one-class embedding (Deng and Li, CVPR 2022)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from adcore.backbones.features import FeatureExtractor
from adcore.errors import ConfigError
from adcore.maps import gaussian_blur, upsample
from adcore.model import AnomalyModel, Batch, Optimization, Prediction, Update
from adcore.training.plan import Plan
from pydantic import Field
from torch import Tensor, nn


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


class OneClassBottleneck(nn.Module):
    """Multi-scale feature fusion (MFF) and one-class embedding (OCE): maps of all layers to one compact code phi."""

    def __init__(self, channels: list[int], fused: list[int], embedding: int, blocks: int, expansion: int) -> None:
        super().__init__()
        self.halvings = nn.ModuleList()  # for each layer, down to the resolution of the last
        for i, inputs in enumerate(channels):
            widths = [inputs, *fused[i + 1 :]]
            halve = [nn.Sequential(resizing(a, b, 0.5), nn.BatchNorm2d(b), nn.ReLU()) for a, b in pairwise(widths)]
            self.halvings.append(nn.Sequential(*halve))
        total = fused[-1] * (len(channels) - 1) + channels[-1]
        self.embedding = stage(total, embedding, blocks, 0.5, expansion)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """[(B, C_l, h_l, w_l)] -> (B, embedding, h / 2, w / 2) with h, w of the last layer."""
        return self.embedding(torch.cat([halve(m) for halve, m in zip(self.halvings, maps, strict=True)], 1))


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


class ReverseDistillation(AnomalyModel):
    """Teacher and student are not alike: the student sees only a code too small to carry what is not normal."""

    def __init__(
        self,
        backbone: Annotated[
            str, Field(description="the teacher, a pretrained convolutional network")
        ] = "wide_resnet50_2",
        layers: Annotated[
            tuple[str, ...],
            Field(
                min_length=3, max_length=3, description="three layers, each of half the resolution of the one before"
            ),
        ] = ("layer1", "layer2", "layer3"),
        weights: Annotated[str, Field(description="pretrained, random, or a weights file")] = "pretrained",
        anomaly_map: Annotated[
            Literal["add", "multiply"], Field(description="how the layers' maps are joined")
        ] = "add",
    ) -> None:
        super().__init__()
        self.anomaly_map = anomaly_map
        self.encoder = FeatureExtractor(backbone, layers, weights)
        channels, strides = self.encoder.channels, self.encoder.strides
        if any(2 * a != b for a, b in pairwise(strides)):
            raise ConfigError(
                f"layers: each must halve the resolution, strides are {strides}; take strides 4, 8, 16, say"
            )
        mirror = MIRRORS.get(self.encoder.card.architecture)
        widths = channels if mirror else list(OTHER_CHANNELS)
        mirror = mirror or MIRRORS["resnet18"]
        embedding = 2 * widths[-1]
        self.bottleneck = OneClassBottleneck(channels, widths, embedding, mirror.embedding_blocks, mirror.expansion)
        self.decoder = Decoder(embedding, widths, channels, mirror)
        for module in (*self.bottleneck.modules(), *self.decoder.modules()):
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def features(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The encoder's and the decoder's features of each layer, (B, C_l, h_l, w_l) both."""
        with torch.no_grad():
            teacher = self.encoder(images)
        return list(zip(teacher, self.decoder(self.bottleneck(teacher)), strict=True))

    def training_step(self, batch: Batch, step: int) -> Iterator[Update]:
        """One minus the cosine of each layer's features, taken as one vector an image as in the authors' code."""
        pairs = self.features(batch.images)
        yield Update(sum((1 - F.cosine_similarity(t.flatten(1), s.flatten(1))).mean() for t, s in pairs))

    def configure_optimizers(self, plan: Plan) -> dict[str, Optimization]:
        """Adam over bottleneck and decoder; the encoder is frozen."""
        parameters = [*self.bottleneck.parameters(), *self.decoder.parameters()]
        return {"main": plan.optimization(parameters, "adam", learning_rate=5e-3, betas=(0.5, 0.99))}

    def forward(self, images: Tensor) -> Prediction:
        """Eq. 1 and 3: one minus the cosine at each position, the layers joined and smoothed; the score is the maximum."""
        maps = torch.stack(
            [
                upsample(1 - F.cosine_similarity(t, s), images.shape[-2:], align_corners=True)
                for t, s in self.features(images)
            ]
        )  # (L, B, H, W)
        joined = maps.sum(0) if self.anomaly_map == "add" else maps.prod(0)
        anomaly_map = gaussian_blur(joined, sigma=4.0)
        return Prediction(anomaly_map.flatten(1).amax(1), anomaly_map)
