"""DFM: probabilistic modeling of deep features (Ahuja et al., 2019), with the reconstruction score of Ndiour et al."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from adcore.backbones.features import create_features
from adcore.batching import split_batch
from adcore.errors import ConfigError
from adcore.maps import upsample, within
from adcore.model import AnomalyModel, Batch, Fit, Prediction, Update
from adcore.training.processes import Processes
from pydantic import Field
from torch import Tensor

from adm_memory.pca import StreamingPCA


class DFM(AnomalyModel):
    """Learns the principal subspace of one layer's features, and a Gaussian in it, in one pass over the images.

    The fit holds the D pooled features of each image while there are at most D images, and D x D moments beyond that.
    """

    divisible = True

    def __init__(
        self,
        backbone: Annotated[str, Field(description="pretrained convolutional network")] = "resnet50",
        layer: Annotated[str, Field(description="its layer")] = "layer3",
        weights: Annotated[str, Field(description="pretrained, random, or a weights file")] = "pretrained",
        pooling: Annotated[int, Field(ge=1, description="side of the squares whose features are averaged")] = 4,
        variance: Annotated[float, Field(gt=0, lt=1, description="part of the variance that the PCA keeps")] = 0.97,
        score: Annotated[
            Literal["fre", "nll"],
            Field(description="fre: feature reconstruction error; nll: negative log-likelihood, without a map"),
        ] = "fre",
    ) -> None:
        super().__init__()
        self.extractor = create_features(backbone, [layer], weights)
        self.pooling, self.variance, self.score = pooling, variance, score
        self.register_buffer("mean", torch.empty(0))  # mu: (D,)
        self.register_buffer("directions", torch.empty(0, 0))  # principal components as rows: (k, D)
        self.register_buffer("variances", torch.empty(0))  # of the Gaussian along each of them: (k,)

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, h, w)."""
        maps = self.extractor(images)[0]
        return F.avg_pool2d(maps, min(self.pooling, *maps.shape[-2:]))

    def on_fit_start(self, fit: Fit) -> None:
        """Begin a new stream of features."""
        self._pca = StreamingPCA(fit.num_images)

    def check_run(self, images: int, size: tuple[int, int]) -> None:
        """ConfigError for one image, which has no spread."""
        if images < 2:
            raise ConfigError(f"DFM needs at least 2 normal images to train on, got {images}")

    @torch.no_grad()
    def training_step(self, batch: Batch, step: int) -> Iterator[Update]:
        """Feed the batch's features to the PCA; there is nothing to optimise."""
        for images in split_batch(batch.images):
            self._pca.add(self.features(images).flatten(1))
        yield from ()

    def merge(self, processes: Processes) -> None:
        """One stream of the features of all processes."""
        self._pca.merge(processes)

    def on_fit_end(self, fit: Fit) -> None:
        """The subspace, and the Gaussian's maximum-likelihood variances: in the components' basis it is diagonal."""
        n = self._pca.count
        mean, variances, self.directions = self._pca.components(self.variance, overwrite=True)
        self.mean, self.variances = mean.float(), (variances * ((n - 1) / n)).float()
        del self._pca

    def forward(self, images: Tensor) -> Prediction:
        """`fre`: squared error of each position and their sum; `nll`: the Gaussian's negative log-likelihood."""
        features = self.features(images)  # (B, C, h, w)
        centred = features.flatten(1) - self.mean  # (B, D)
        code = centred @ self.directions.t()  # (B, k)
        if self.score == "nll":
            constant = (self.variances.log() + math.log(2 * math.pi)).sum()
            return Prediction(0.5 * ((code.square() / self.variances).sum(1) + constant))
        error = (centred - code @ self.directions).square().view_as(features).sum(1)  # (B, h, w)
        return Prediction(within(error, self.roi_mask, fill=0).flatten(1).sum(1), upsample(error, images.shape[-2:]))
