"""CFLOW-AD: conditional normalising flows over single feature vectors, told where in the image each one stands.

Gudovskiy et al., "CFLOW-AD: Real-Time Unsupervised Anomaly Detection with Localization via Conditional Normalizing
Flows", WACV 2022.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated

import torch
import torch.nn.functional as F
from adcore.backbones.features import FeatureExtractor
from adcore.maps import highest, upsample
from adcore.model import AnomalyModel, Batch, Fit, Optimization, Prediction, Update
from adcore.training.plan import Plan
from einops import rearrange, repeat
from FrEIA.framework import SequenceINN
from pydantic import Field
from torch import Tensor, nn

from adm_flow.blocks import CouplingBlock


def positional_encoding(dims: int, height: int, width: int, device: torch.device | None = None) -> Tensor:
    """(dims, height, width): sines and cosines of the column in the first half of `dims`, of the row in the second."""
    half = dims // 2
    frequencies = torch.exp(torch.arange(0, half, 2, device=device) * -(math.log(1e4) / half))  # (dims / 4,)

    def encode(length: int) -> Tensor:
        angles = torch.arange(length, device=device)[:, None] * frequencies
        return rearrange(
            [angles.sin(), angles.cos()], "two l f -> (f two) l"
        )  # (half, length): sin, cos, sin, cos, ...

    columns = encode(width)[:, None, :].expand(half, height, width)
    rows = encode(height)[:, :, None].expand(half, height, width)
    return torch.cat([columns, rows])


def build_decoder(channels: int, condition: int, blocks: int, clamp: float) -> SequenceINN:
    """The flow of one layer's vectors (N, C), each coupling conditioned on (N, condition)."""

    def subnet(dims_in: int, dims_out: int) -> nn.Module:
        return nn.Sequential(nn.Linear(dims_in, 2 * dims_in), nn.ReLU(), nn.Linear(2 * dims_in, dims_out))

    decoder = SequenceINN(channels)
    for _ in range(blocks):
        decoder.append(CouplingBlock, cond=0, cond_shape=(condition,), subnet_constructor=subnet, affine_clamping=clamp)
    return decoder


class CFlow(AnomalyModel):
    """Likelihood of every feature vector given its position, by one flow for each layer of the backbone."""

    reference: Tensor  # (L,)

    def __init__(
        self,
        backbone: Annotated[str, Field(description="frozen feature network")] = "resnet18",
        layers: Annotated[tuple[str, ...], Field(min_length=1, description="its feature maps")] = ("layer2", "layer3"),
        weights: Annotated[str, Field(description='"pretrained", "random" or a file')] = "pretrained",
        coupling_blocks: Annotated[int, Field(ge=1, description="coupling blocks of each flow")] = 8,
        clamp: Annotated[float, Field(gt=0, description="bound of a coupling's log scale")] = 1.9,
        condition_channels: Annotated[
            int, Field(ge=4, multiple_of=4, description="numbers that encode a position")
        ] = 128,
        fiber_size: Annotated[int, Field(ge=1, description="feature vectors in one optimizer step")] = 64,
    ) -> None:
        super().__init__()
        self.condition_channels, self.fiber_size = condition_channels, fiber_size
        self.features = FeatureExtractor(backbone, layers, weights)
        self.decoders = nn.ModuleList(
            build_decoder(c, condition_channels, coupling_blocks, clamp) for c in self.features.channels
        )
        # highest log-likelihood of each layer on the training images: the paper takes it from the whole test set, which a
        # single image to be judged does not have
        self.register_buffer("reference", torch.zeros(len(layers)))

    def vectors(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """A map (B, C, h, w) to its vectors (B h w, C) and their position encodings (B h w, condition)."""
        b, _, h, w = features.shape
        condition = positional_encoding(self.condition_channels, h, w, features.device)
        return rearrange(features, "b c h w -> (b h w) c"), repeat(condition, "d h w -> (b h w) d", b=b)

    def log_likelihood(self, layer: int, vectors: Tensor, condition: Tensor) -> Tensor:
        """(N,): log p(vector | position), a dimension."""
        z, log_det = self.decoders[layer](vectors, [condition])  # z = g^-1(vector, c)
        channels = z.shape[1]
        log_p = log_det - 0.5 * z.square().sum(1) - 0.5 * channels * math.log(2 * math.pi)
        return log_p / channels

    def training_step(self, batch: Batch, step: int) -> Iterator[Update]:
        """One optimizer step for each fibre of shuffled vectors, layer by layer; the last fibre takes what is over."""
        for layer, features in enumerate(self.features(batch.images)):
            vectors, condition = self.vectors(features)
            order = torch.randperm(len(vectors), device="cpu").to(vectors.device)
            cuts = range(self.fiber_size, len(order) - self.fiber_size + 1, self.fiber_size)
            for fiber in order.tensor_split(list(cuts)):
                log_p = self.log_likelihood(layer, vectors[fiber], condition[fiber])
                yield Update(-F.logsigmoid(log_p).mean())

    @torch.no_grad()
    def on_fit_end(self, fit: Fit) -> None:
        """Note the highest likelihoods on the training images, against which maps are normalised."""
        self.reference.fill_(-torch.inf)
        for batch in fit.train_batches():
            peaks = [log_p.max() for log_p in self.log_likelihoods(batch.images)]
            self.reference.copy_(torch.maximum(self.reference, torch.stack(peaks)))

    def on_validation_start(self, fit: Fit) -> None:
        """The same for predictions in the middle of a fit."""
        self.on_fit_end(fit)

    def log_likelihoods(self, images: Tensor) -> list[Tensor]:
        """(B, h, w) for each layer."""
        maps = self.features(images)
        likelihoods = (self.log_likelihood(layer, *self.vectors(features)) for layer, features in enumerate(maps))
        sizes = [m.shape[-2:] for m in maps]
        return [rearrange(p, "(b h w) -> b h w", h=h, w=w) for p, (h, w) in zip(likelihoods, sizes, strict=True)]

    def forward(self, images: Tensor) -> Prediction:
        """1 - likelihood relative to the most likely training vector, summed over the layers; the score is the maximum."""
        relative = [
            torch.exp(log_p - peak) for log_p, peak in zip(self.log_likelihoods(images), self.reference, strict=True)
        ]
        size = images.shape[-2:]
        anomaly_map = torch.stack([1 - upsample(p, size, align_corners=True) for p in relative]).sum(0)  # (B, H, W)
        return Prediction(highest(anomaly_map, self.roi_mask), anomaly_map)

    def configure_optimizers(self, plan: Plan) -> dict[str, Optimization]:
        """Adam on the flows; a fibre leaves the other layers' flows without gradients, and so untouched."""
        return {"main": plan.optimization(self.decoders.parameters(), "adam", learning_rate=1e-4, fused=True)}
