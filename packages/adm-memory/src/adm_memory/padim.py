"""PaDiM: a Gaussian of pretrained features at each position (Defard et al., ICPR 2021)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
import torch.nn.functional as F
from adcore.backbones.features import FeatureExtractor
from adcore.errors import TrainingError
from adcore.maps import gaussian_blur, upsample
from adcore.model import AnomalyModel, Batch, Fit, Prediction, Update
from pydantic import Field
from torch import Tensor

N_FEATURES = {"resnet18": 100, "wide_resnet50_2": 550, "tf_efficientnet_lite0": 100}  # d in the paper, table 7
CHUNK = 32  # images whose features wait until they are folded into the sums


def mahalanobis(delta: Tensor, precision: Tensor) -> Tensor:
    """sqrt(delta^T precision delta) for each image and position: (B, L, d), (L, d, d) -> (B, L)."""
    weighted = torch.bmm(delta.transpose(0, 1), precision)  # (L, B, d)
    return (weighted * delta.transpose(0, 1)).sum(-1).clamp_min(0).sqrt().t()


class PaDiM(AnomalyModel):
    """Learns mean and covariance of a random subset of channels at every position of the finest layer, in one pass."""

    def __init__(
        self,
        backbone: Annotated[str, Field(description="pretrained convolutional network")] = "wide_resnet50_2",
        layers: Annotated[tuple[str, ...], Field(min_length=1, description="its layers, finest first")] = (
            "layer1",
            "layer2",
            "layer3",
        ),
        weights: Annotated[str, Field(description="pretrained, random, or a weights file")] = "pretrained",
        n_features: Annotated[
            int | None, Field(ge=1, description="channels kept at random; by backbone when not given")
        ] = None,
        regularization: Annotated[float, Field(gt=0, description="added to the covariance's diagonal")] = 0.01,
    ) -> None:
        super().__init__()
        self.extractor = FeatureExtractor(backbone, layers, weights)
        total = sum(self.extractor.channels)
        self.n_features = min(n_features or N_FEATURES.get(self.extractor.card.name, 100), total)
        self.regularization = regularization
        self.register_buffer("channels", torch.arange(self.n_features))  # drawn when the fit starts
        self.register_buffer("mean", torch.empty(0))  # mu: (L, d)
        self.register_buffer("precision", torch.empty(0))  # inverse of Sigma: (L, d, d)

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, d, h, w): the kept channels of all layers at the resolution of the first."""
        maps = self.extractor(images)
        size, start, parts = maps[0].shape[-2:], 0, []
        for features in maps:
            stop = start + features.shape[1]
            kept = self.channels[(self.channels >= start) & (self.channels < stop)] - start
            parts.append(F.interpolate(features[:, kept], size=size, mode="nearest"))
            start = stop
        return torch.cat(parts, 1)

    def on_fit_start(self, fit: Fit) -> None:
        """Draw the channels; sorted, so that each layer's stay together."""
        generator = torch.Generator().manual_seed(fit.plan.seed)
        drawn = torch.randperm(sum(self.extractor.channels), generator=generator)[: self.n_features]
        self.channels = drawn.sort().values.to(fit.device)
        self._waiting: list[Tensor] = []
        self._count, self._shift = 0, None

    @torch.no_grad()
    def training_step(self, batch: Batch, step: int) -> Iterator[Update]:
        """Observe the batch's features; there is nothing to optimise."""
        self._waiting.append(self.embed(batch.images).flatten(2).permute(2, 0, 1))  # (L, B, d)
        if sum(features.shape[1] for features in self._waiting) >= CHUNK:
            self._fold()
        yield from ()

    def _fold(self) -> None:
        """Add the waiting features to the running sums.

        The sums are of differences to the first chunk's mean: the variance would otherwise drown in the rounding of the
        second moment.
        """
        features = torch.cat(self._waiting, 1)  # (L, n, d)
        self._waiting.clear()
        if self._shift is None:
            length, _, d = features.shape
            self._shift = features.mean(1, keepdim=True)
            self._sum = features.new_zeros(length, d)
            self._products = features.new_zeros(length, d, d)
        features = features - self._shift
        self._count += features.shape[1]
        self._sum += features.sum(1)
        self._products.baddbmm_(features.transpose(1, 2), features)

    def on_fit_end(self, fit: Fit) -> None:
        """Sums to mean and inverse covariance (unbiased, with epsilon I added)."""
        if self._waiting:
            self._fold()
        if self._count < 2:
            raise TrainingError(f"PaDiM needs at least 2 normal images for a covariance, got {self._count}")
        offset = self._sum / self._count
        self.mean = self._shift[:, 0] + offset
        covariance = self._products.baddbmm_(offset[:, :, None], offset[:, None, :], alpha=-self._count)
        covariance.div_(self._count - 1).diagonal(dim1=1, dim2=2).add_(self.regularization)
        for i in range(0, len(covariance), 256):  # in place, block by block: never a second array of this size
            covariance[i : i + 256] = torch.cholesky_inverse(torch.linalg.cholesky(covariance[i : i + 256]))
        self.precision = covariance
        del self._products, self._sum, self._shift

    def forward(self, images: Tensor) -> Prediction:
        """Mahalanobis distance at each position, upsampled and smoothed; the score is the map's maximum."""
        features = self.embed(images)  # (B, d, h, w)
        h, w = features.shape[-2:]
        delta = features.flatten(2).transpose(1, 2) - self.mean  # (B, L, d)
        distances = mahalanobis(delta, self.precision).unflatten(1, (h, w))
        anomaly_map = gaussian_blur(upsample(distances, images.shape[-2:]), sigma=4.0)
        return Prediction(anomaly_map.flatten(1).amax(1), anomaly_map)
