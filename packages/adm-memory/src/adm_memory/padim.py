"""PaDiM: a Gaussian of pretrained features at each position (Defard et al., ICPR 2021)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
import torch.nn.functional as F
from adcore.backbones.features import create_features
from adcore.batching import one_at_a_time, split_batch
from adcore.errors import ConfigError, TrainingError
from adcore.maps import gaussian_blur, highest, upsample, within
from adcore.model import AnomalyModel, Batch, Fit, Prediction, Update
from adcore.training.processes import Processes
from einops import rearrange
from pydantic import Field
from torch import Tensor

N_FEATURES = {"resnet18": 100, "wide_resnet50_2": 550, "tf_efficientnet_lite0": 100}  # d in the paper, table 7
GROUP = 4  # images whose distances are computed at once on a CPU: one alone takes as long
CHUNK = 32  # images that wait for the running sums, where there are more images than features
BLOCK = 16  # positions that are worked on at once in double precision


def mahalanobis(delta: Tensor, whitening: Tensor) -> Tensor:
    """|W delta| for each image and position, where W^T W is the inverse covariance: (B, L, d), (L, d, d) -> (B, L)."""
    white = torch.bmm(delta.transpose(0, 1), whitening.transpose(1, 2))  # (L, B, d)
    return torch.linalg.vector_norm(white, dim=-1).t()


def in_groups(delta: Tensor, whitening: Tensor) -> Tensor:
    """As `mahalanobis`, in groups of GROUP images, the last one filled up with zeros.

    All matrices W are read once for a group, and a product of one size gives each image the same bits whatever is beside it.
    """
    groups = F.pad(delta, (0, 0, 0, 0, 0, -len(delta) % GROUP)).split(GROUP)
    return torch.cat([mahalanobis(group, whitening) for group in groups])[: len(delta)]


class PaDiM(AnomalyModel):
    """Learns mean and covariance of a random subset of channels at every position of the finest layer, in one pass."""

    divisible = True
    group = GROUP

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
        self.extractor = create_features(backbone, layers, weights)
        total = sum(self.extractor.channels)
        self.n_features = min(n_features or N_FEATURES.get(self.extractor.card.name, 100), total)
        self.regularization = regularization
        self.register_buffer("channels", torch.arange(self.n_features))  # drawn when the fit starts
        self.register_buffer("mean", torch.empty(0))  # mu: (L, d)
        self.register_buffer("whitening", torch.empty(0))  # W with W^T W = Sigma^-1: (L, d, d)

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, d, h, w): the kept channels of all layers at the resolution of the first."""
        maps = self.extractor(images)
        size, start, parts = maps[0].shape[-2:], 0, []
        for features in maps:
            stop = start + features.shape[1]
            kept = self.channels[(self.channels >= start) & (self.channels < stop)] - start
            parts.append(F.interpolate(features.index_select(1, kept), size=size, mode="nearest"))
            start = stop
        return torch.cat(parts, 1)

    def on_fit_start(self, fit: Fit) -> None:
        """Draw the channels; sorted, so that each layer's stay together."""
        generator = torch.Generator().manual_seed(fit.plan.seed)
        drawn = torch.randperm(sum(self.extractor.channels), generator=generator)[: self.n_features]
        self.channels = drawn.sort().values.to(fit.device)
        # All features of few images take less than the running sums, and need no rounding in between.
        self._capacity = fit.num_images if fit.num_images <= self.n_features else CHUNK
        self._images, self._waiting, self._filled, self._count = fit.num_images, None, 0, 0
        self._shift = self._sum = self._products = None

    def check_run(self, images: int, size: tuple[int, int]) -> None:
        """ConfigError for one image, which has no spread."""
        if images < 2:
            raise ConfigError(f"PaDiM needs at least 2 normal images to train on, got {images}")

    @torch.no_grad()
    def training_step(self, batch: Batch, step: int) -> Iterator[Update]:
        """Copy the batch's features into the waiting buffer; there is nothing to optimise."""
        for features in (f for images in split_batch(batch.images) for f in self.embed(images).flatten(2)):  # (d, L)
            if self._waiting is None:
                self._waiting = features.new_empty(self._capacity, *features.shape)
            if self._filled == self._capacity:
                self._fold()
            self._waiting[self._filled] = features
            self._filled += 1
            self._count += 1
        yield from ()

    def _moments(self, block: slice) -> tuple[Tensor, Tensor]:
        """Sums of the features (l, d) and of their products (l, d, d) over all images, for a block of l positions.

        In double precision and of differences to one image's features: the covariance of few images is nearly singular,
        and its inverse would show every rounding.
        """
        if self._shift is None:
            self._shift = self._waiting[0].t().clone()  # (L, d)
        features = rearrange(self._waiting[: self._filled, :, block], "n d l -> l n d").double()
        features -= self._shift[block, None]
        total, products = features.sum(1), features.transpose(1, 2) @ features
        if self._products is not None:
            total, products = total + self._sum[block], products + self._products[block]  # double
        return total, products

    def _fold(self) -> None:
        """Empty the waiting buffer into running sums."""
        length, d = self._waiting.shape[2], self.n_features
        old = self._products is None
        products = self._waiting.new_empty(length, d, d) if old else self._products
        total = self._waiting.new_empty(length, d, dtype=torch.double) if old else self._sum
        for i in range(0, length, BLOCK):
            block = slice(i, i + BLOCK)
            total[block], products[block] = self._moments(block)
        self._sum, self._products, self._filled = total, products, 0

    def merge(self, processes: Processes) -> None:
        """All features where there is room for them, else the sums of all, of differences to the first one's shift."""
        if self._capacity >= self._images:
            self._filled = self._count = processes.collect(self._waiting, self._filled)
            return
        self._fold()
        shift = processes.copied(self._shift)
        offset, count = (self._shift - shift).double(), self._count  # (L, d)
        for i in range(0, len(offset), BLOCK):
            block = slice(i, i + BLOCK)
            total, moved = self._sum[block, :, None], offset[block, :, None]  # (l, d, 1)
            crossed = total @ moved.mT
            self._products[block] = self._products[block] + crossed + crossed.mT + count * (moved @ moved.mT)
        processes.add(self._sum.add_(offset, alpha=count))
        processes.add(self._products)
        self._shift, self._count = shift, int(processes.add(torch.tensor(count)))

    def on_fit_end(self, fit: Fit) -> None:
        """Moments to mean and whitening, from the unbiased covariance with epsilon I added."""
        n, d, length = self._count, self.n_features, self._waiting.shape[2]
        if n < 2:
            raise TrainingError(f"PaDiM needs at least 2 normal images for a covariance, got {n}")
        self.mean = self._waiting.new_empty(length, d)
        self.whitening = self._waiting.new_empty(length, d, d) if self._products is None else self._products
        identity = torch.eye(d, dtype=torch.double, device=self.mean.device)
        for i in range(0, length, BLOCK):
            block = slice(i, i + BLOCK)
            total, products = self._moments(block)
            offset = total / n
            covariance = (products - n * offset[:, :, None] * offset[:, None, :]) / (n - 1)
            lower = torch.linalg.cholesky(covariance + self.regularization * identity)
            self.mean[block] = self._shift[block] + offset
            self.whitening[block] = torch.linalg.solve_triangular(lower, identity, upper=False)
            fit.progress("covariance", min(i + BLOCK, length), length)
        del self._waiting, self._shift, self._sum, self._products

    def forward(self, images: Tensor) -> Prediction:
        """Mahalanobis distance at each position, upsampled and smoothed; the score is the map's maximum."""
        features = [self.embed(part) for part in split_batch(images)]  # (B, d, h, w)
        delta = torch.cat([rearrange(part, "b d h w -> b (h w) d") for part in features]) - self.mean
        grouped = one_at_a_time(images.device) and not torch.compiler.is_compiling()
        distances = (in_groups if grouped else mahalanobis)(delta, self.whitening)
        distances = within(rearrange(distances, "b (h w) -> b h w", h=features[0].shape[-2]), self.roi_mask)
        maps = [gaussian_blur(upsample(part, images.shape[-2:]), sigma=4.0) for part in split_batch(distances)]
        anomaly_map = torch.cat(maps)
        return Prediction(highest(anomaly_map, self.roi_mask), anomaly_map)
