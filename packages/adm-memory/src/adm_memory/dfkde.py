"""DFKDE: kernel density of a few principal components of pooled deep features (method documented with anomalib, 2022)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated

import torch
from adcore.backbones.features import create_features
from adcore.batching import split_batch
from adcore.errors import ConfigError
from adcore.model import AnomalyModel, Batch, Fit, Prediction, Update
from pydantic import Field
from torch import Tensor, nn

from adm_memory.pca import StreamingPCA

ROOM = 2**26  # numbers kept for the sake of one pass: pooled features of 32,768 images of 2,048 channels
CHUNK = 16  # of them projected at a time


def scott_whitening(points: Tensor) -> Tensor:
    """Lower triangular W (d, d) with W^T W the inverse of the kernel's covariance by Scott's rule, of points (n, d).

    Source: Scott 1992; the same rule as `scipy.stats.gaussian_kde`.
    """
    n, d = points.shape
    covariance = points.t().cov().reshape(d, d) * n ** (-2 / (d + 4))
    identity = torch.eye(d, dtype=points.dtype, device=points.device)
    return torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), identity, upper=False)


def log_density(queries: Tensor, points: Tensor, whitening: Tensor) -> Tensor:
    """Log of the mean of Gaussian kernels around `points` (n, d), at `queries` (B, d) -> (B,)."""
    white, centres = queries @ whitening.t(), points @ whitening.t()
    squared = torch.cdist(white, centres, compute_mode="donot_use_mm_for_euclid_dist").square()  # (B, n)
    return mean_kernel(squared, whitening)


def mean_kernel(squared: Tensor, whitening: Tensor) -> Tensor:
    """Log of the mean Gaussian kernel at squared distances (B, n) in the space that `whitening` (d, d) leads to -> (B,)."""
    n, d = squared.shape[1], len(whitening)
    constant = whitening.diagonal().log().sum() - 0.5 * d * math.log(2 * math.pi) - math.log(n)
    return torch.logsumexp(-0.5 * squared, 1) + constant


class DFKDE(AnomalyModel):
    """Keeps a few principal components of every normal image; the score is the negative log-density among them.

    The fit holds the pooled features of at most `ROOM` numbers; of more images it holds moments, and sees them twice.
    """

    def __init__(
        self,
        backbone: Annotated[str, Field(description="pretrained convolutional network")] = "resnet50",
        layer: Annotated[str, Field(description="its layer, averaged over all positions")] = "layer4",
        weights: Annotated[str, Field(description="pretrained, random, or a weights file")] = "pretrained",
        n_components: Annotated[
            int, Field(ge=1, description="largest number of components; n images have at most n - 1")
        ] = 16,
    ) -> None:
        super().__init__()
        self.extractor = create_features(backbone, [layer], weights)
        self.n_components = n_components
        self.register_buffer("mean", torch.empty(0))  # (D,)
        self.register_buffer("directions", torch.empty(0, 0))  # orthogonal, all scaled alike: (k, D)
        self.register_buffer("points", torch.empty(0, 0, dtype=torch.double))  # of the normal images: (n, k)
        self.register_buffer("whitening", torch.empty(0, 0, dtype=torch.double))  # of the kernel: (k, k)

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C)."""
        return self.extractor(images)[0].mean((2, 3))

    def project(self, features: Tensor) -> Tensor:
        """(B, D) -> (B, k) double."""
        return ((features - self.mean) @ self.directions.t()).double()

    def on_fit_start(self, fit: Fit) -> None:
        """Begin a new stream of features."""
        self._pca = StreamingPCA(fit.num_images, ROOM)

    def check_run(self, images: int, size: tuple[int, int]) -> None:
        """ConfigError for one image, which has no spread."""
        if images < 2:
            raise ConfigError(f"DFKDE needs at least 2 normal images to train on, got {images}")

    @torch.no_grad()
    def training_step(self, batch: Batch, step: int) -> Iterator[Update]:
        """Feed the batch's features to the PCA; there is nothing to optimise."""
        for images in split_batch(batch.images):
            self._pca.add(self.features(images))
        yield from ()

    @torch.no_grad()
    def on_fit_end(self, fit: Fit) -> None:
        """Project every image: the density needs the few components of each, and the directions are known only now.

        Pooled features are kept for that as long as they are few; beyond that, a second pass makes them again.
        """
        kept = self._pca.kept
        mean, _, self.directions = self._pca.components(self.n_components)
        self.mean = mean.float()
        again = (self.features(x) for batch in fit.train_batches() for x in split_batch(batch.images.to(fit.device)))
        parts = again if kept is None else kept.split(CHUNK)
        self.points = torch.cat([self.project(part) for part in parts])
        del self._pca, kept
        longest = torch.linalg.vector_norm(self.points, dim=1).max()  # scaled to 1, so that densities have no unit
        self.points = self.points / longest
        self.directions = self.directions / longest.to(self.directions.dtype)
        self.whitening = scott_whitening(self.points)

    def forward(self, images: Tensor) -> Prediction:
        """The negative log-density of each image; there is no map."""
        return Prediction(-log_density(self.project(self.features(images)), self.points, self.whitening).float())

    def export_module(self) -> nn.Module:
        """The same with distances written out."""
        return ExportedDFKDE(self)


class ExportedDFKDE(nn.Module):
    """A fitted DFKDE for other runtimes, some of which have no distances and no double precision: images -> score (B,)."""

    def __init__(self, model: DFKDE) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("centres", model.points @ model.whitening.t())  # (n, k)

    def forward(self, images: Tensor) -> tuple[Tensor, None]:
        """As DFKDE.forward; there are few components, so that differences are small and exact."""
        white = self.model.project(self.model.features(images)) @ self.model.whitening.t()  # (B, k)
        squared = (white[:, None] - self.centres).square().sum(2)
        return -mean_kernel(squared, self.model.whitening).float(), None
