"""Reverse Distillation: a decoder restores the teacher's features from a one-class embedding (Deng and Li, CVPR 2022)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from adcore.backbones.features import FeatureExtractor
from adcore.backbones.mirror import Decoder, fuse, fusing_layers, mirror_of, stage
from adcore.errors import ConfigError
from adcore.maps import gaussian_blur, highest, upsample
from adcore.model import AnomalyModel, Batch, Optimization, Prediction, Update
from adcore.training.plan import Plan
from pydantic import Field
from torch import Tensor, nn


class OneClassBottleneck(nn.Module):
    """Multi-scale feature fusion (MFF) and one-class embedding (OCE): maps of all layers to one compact code phi."""

    def __init__(self, channels: list[int], fused: list[int], embedding: int, blocks: int, expansion: int) -> None:
        super().__init__()
        self.halvings = fusing_layers(channels, fused)
        total = fused[-1] * (len(channels) - 1) + channels[-1]
        self.embedding = stage(total, embedding, blocks, 0.5, expansion)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """[(B, C_l, h_l, w_l)] -> (B, embedding, h / 2, w / 2) with h, w of the last layer."""
        return self.embedding(fuse(self.halvings, maps))


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
        channels, (mirror, widths) = self.encoder.channels, mirror_of(self.encoder)
        embedding = 2 * widths[-1]
        self.bottleneck = OneClassBottleneck(channels, widths, embedding, mirror.embedding_blocks, mirror.expansion)
        self.decoder = Decoder(embedding, widths, channels, mirror)
        for module in (*self.bottleneck.modules(), *self.decoder.modules()):
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def check_run(self, images: int, size: tuple[int, int]) -> None:
        """ConfigError where the decoder would not give maps of the encoder's size."""
        multiple = 2 * self.encoder.strides[-1]
        if size[0] % multiple or size[1] % multiple:
            raise ConfigError(
                f"Reverse Distillation needs sides that are multiples of {multiple}, got {size[0]} x {size[1]}; set image_size"
            )

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
        return {"main": plan.optimization(parameters, "adam", learning_rate=5e-3, betas=(0.5, 0.99), fused=True)}

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
        return Prediction(highest(anomaly_map, self.roi_mask), anomaly_map)
