"""CFA: coupled-hypersphere-based feature adaptation (Lee et al., IEEE Access 2022)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from adcore.backbones.features import create_features
from adcore.batching import parts_of
from adcore.errors import ConfigError
from adcore.maps import gaussian_blur, highest, kept_cells, seen_cells, upsample, within
from adcore.model import AnomalyModel, Batch, Fit, Optimization, Prediction, Update
from adcore.training.device import at_least_single
from adcore.training.plan import Plan
from einops import rearrange
from pydantic import Field
from sklearn.cluster import KMeans
from torch import Tensor, nn

from adm_memory.neighbours import DenseNeighbours, NearestNeighbours

NU = 1e-3  # the loss is divided by it
ALPHA = 0.1  # hard negatives count once they are closer than r^2 - alpha


def hypersphere_loss(
    patches: Tensor, bank: Tensor, distances: Tensor, nearest: Tensor, k: int, radius: float
) -> Tensor:
    """Pulls patches into the spheres of their k nearest entries, pushes them out of those of the next ones (eq. 2-4).

    `patches` (P, d) with gradient, `bank` (M, d), `distances` and `nearest` (P, k + j): what the search found. The
    gradient of |p - c|^2 is written out, sum_k w_k 2 (p - c_k), so no (P, M) matrix is kept for the backward pass.
    """
    attraction = distances[:, :k].square() - radius**2
    repulsion = radius**2 - distances[:, k:].square() - ALPHA
    hinges = [F.relu(part) for part in (attraction, repulsion)]
    value = sum(hinge.mean() for hinge in hinges if hinge.numel())
    signs = [sign * (hinge > 0) / max(hinge.numel(), 1) for sign, hinge in zip((1, -1), hinges, strict=True)]
    weights = torch.cat(signs, 1).to(bank.dtype)  # d value / d |p - c|^2: (P, k + j)
    centres = F.embedding_bag(nearest, bank, mode="sum", per_sample_weights=weights)  # sum_k w_k c_k: (P, d)
    slope = 2 * (weights.sum(1, keepdim=True) * patches.detach() - centres)
    linear = (slope * patches).sum()
    return (value + (linear - linear.detach())) / NU


class CFA(AnomalyModel):
    """Learns a 1x1 convolution that draws patch features into small spheres around a bank of average ones."""

    cannot_add = "its features were trained around its bank; train it again with the new images"

    def __init__(
        self,
        backbone: Annotated[str, Field(description="pretrained convolutional network")] = "wide_resnet50_2",
        layers: Annotated[tuple[str, ...], Field(min_length=1, description="its layers, finest first")] = (
            "layer1",
            "layer2",
            "layer3",
        ),
        weights: Annotated[str, Field(description="pretrained, random, or a weights file")] = "pretrained",
        gamma_c: Annotated[int, Field(ge=1, description="how many times fewer bank entries than positions")] = 1,
        gamma_d: Annotated[int, Field(ge=1, description="how many times fewer dimensions than channels")] = 1,
        num_neighbors: Annotated[int, Field(ge=1, description="K: nearest entries that attract")] = 3,
        num_hard_negatives: Annotated[int, Field(ge=0, description="J: the next ones, that repel")] = 3,
        radius: Annotated[float, Field(gt=0, description="r of the spheres")] = 1e-5,
    ) -> None:
        super().__init__()
        self.extractor = create_features(backbone, layers, weights)
        channels = sum(self.extractor.channels)
        if gamma_d > channels:
            raise ConfigError(f"gamma_d {gamma_d} leaves no dimension of {channels} channels; give at most {channels}")
        self.gamma_c, self.num_neighbors, self.num_hard_negatives = gamma_c, num_neighbors, num_hard_negatives
        self.radius = radius
        self.descriptor = nn.Conv2d(channels + 2, channels // gamma_d, 1)  # phi; 2 for the coordinates (CoordConv)
        self.register_buffer("memory_bank", torch.empty(0))  # C: (M, d)
        self._index: NearestNeighbours | None = None  # search structure, made from the bank when first needed

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> locally averaged features of all layers and their coordinates: (B, C + 2, h, w)."""
        maps = [F.avg_pool2d(m, 3, 1, 1) for m in self.extractor(images)]
        size = maps[0].shape[-2:]
        maps = [maps[0], *(F.interpolate(m, size=size, mode="bilinear", align_corners=False) for m in maps[1:])]
        axes = [torch.linspace(-1, 1, n, device=images.device, dtype=images.dtype) for n in size]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij")).expand(images.shape[0], -1, -1, -1)  # row, column
        return torch.cat([*maps, grid], 1)

    def search(self, patches: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Distances and numbers of the nearest bank entries, at most as many as there are."""
        with torch.autocast(patches.device.type, enabled=False):  # the search is exact
            if self._index is None:
                self._index = NearestNeighbours(self.memory_bank)
            return self._index.query(patches, min(count, len(self.memory_bank)))

    def configure_optimizers(self, plan: Plan) -> dict[str, Optimization]:
        """AdamW with AMSGrad on the descriptor."""
        main = plan.optimization(
            self.descriptor.parameters(), "adamw", learning_rate=1e-3, weight_decay=5e-4, amsgrad=True
        )
        return {"main": main}

    @torch.no_grad()
    def on_fit_start(self, fit: Fit) -> None:
        """The bank: described average features of each position that counts in an image, or clusters of them.

        The descriptor is affine, so it describes their average instead of being averaged over all images.
        """
        total, count, counts = 0.0, 0, None
        for batch in fit.train_batches():
            for images, seen in parts_of(batch.to(fit.device)):
                features = self.features(images)
                total = total + features.sum(0, dtype=torch.double)
                count += len(images)
                if seen is not None:
                    cells = seen_cells(seen, rearrange(features, "b d h w -> b h w d")).any(0)
                    counts = cells if counts is None else counts | cells
        mean = (total / count).to(self.descriptor.weight)[None]
        bank = rearrange(self.descriptor(mean), "1 d h w -> (h w) d")
        bank = bank if counts is None else bank[counts.flatten()]
        if self.gamma_c > 1:
            clusters = KMeans(max(1, len(bank) // self.gamma_c), n_init=1, random_state=fit.plan.seed)
            bank = torch.from_numpy(clusters.fit(bank.cpu().numpy()).cluster_centers_).to(bank)
        self.memory_bank, self._index = bank.contiguous(), None

    def training_step(self, batch: Batch, step: int) -> Iterator[Update]:
        """The coupled-hypersphere loss of the batch's patches."""
        described = at_least_single(self.descriptor(self.features(batch.images)))
        patches = kept_cells(rearrange(described, "b d h w -> b h w d"), batch.seen)  # (P, d)
        distances, nearest = self.search(patches.detach(), self.num_neighbors + self.num_hard_negatives)
        loss = hypersphere_loss(patches, self.memory_bank, distances, nearest, self.num_neighbors, self.radius)
        yield Update(loss, logs={"loss": loss.detach()})

    def forward(self, images: Tensor) -> Prediction:
        """Distance to the nearest entry, less where others are as near (eq. 7), smoothed; the score is its maximum."""
        described = self.descriptor(self.features(images))
        distances, _ = self.search(rearrange(described, "b d h w -> (b h w) d"), self.num_neighbors)  # (P, K)
        return Prediction(*self.judge(distances, described.shape[-2:], images.shape[-2:]))

    def judge(self, distances: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Distances (B * h * w, K) to the nearest entries, nearest first -> score (B,), map (B, *size)."""
        scores = F.softmin(distances, 1)[:, 0] * distances[:, 0]
        maps = within(rearrange(scores, "(b h w) -> b h w", h=grid[0], w=grid[1]), self.roi_mask)
        anomaly_map = gaussian_blur(upsample(maps, size), sigma=4.0)
        return highest(anomaly_map, self.roi_mask), anomaly_map

    def export_module(self) -> nn.Module:
        """The same by one product with the whole bank."""
        return ExportedCFA(self)

    def _apply(self, *args: Any, **kwargs: Any) -> CFA:
        self._index = None  # the bank moves to another device or type
        return super()._apply(*args, **kwargs)


class ExportedCFA(nn.Module):
    """A fitted CFA without its search structure, for other runtimes: images -> score (B,), map (B, H, W)."""

    def __init__(self, model: CFA) -> None:
        super().__init__()
        self.model, self.neighbours = model, DenseNeighbours(model.memory_bank)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """As CFA.forward; distances come from the differences, since cells are small beside their entries' norms."""
        described = self.model.descriptor(self.model.features(images))
        patches = rearrange(described, "b d h w -> (b h w) d")
        count = min(self.model.num_neighbors, len(self.model.memory_bank))
        nearest = self.neighbours(patches)[0].topk(count, largest=False).indices  # (P, K)
        parts = [patches - F.embedding(nearest[:, k], self.model.memory_bank) for k in range(count)]
        distances = torch.stack([torch.linalg.vector_norm(part, dim=1) for part in parts], 1).sort(1).values
        return self.model.judge(distances, described.shape[-2:], images.shape[-2:])
