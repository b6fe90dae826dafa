"""PatchCore: distance to a coreset of normal patch features (Roth et al., CVPR 2022)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from adcore.backbones.features import create_features
from adcore.batching import parts_of
from adcore.errors import ConfigError, TrainingError
from adcore.maps import gaussian_blur, kept_cells, upsample, within
from adcore.memory import trim
from adcore.model import Batch, Fit, Prediction, Update
from adcore.training.processes import Processes
from einops import rearrange
from pydantic import Field
from torch import Tensor, nn

from adm_memory.bank import BankModel, entries, reduced, take_all
from adm_memory.denoise import compacted, least_suspicious, local_outlier_factors
from adm_memory.neighbours import DenseNeighbours
from adm_memory.streaming import StreamedPatches, bytes_of_row, covering, memory_limit, size_text

log = logging.getLogger(__name__)


def reweight(score: Tensor, to_support: Tensor) -> Tensor:
    """Image score with the paper's weight (eq. 7): higher where the nearest patch m* is a rare one, far from its like.

    `score` (B,): distance of the most anomalous patch to m*; `to_support` (B, b): its distances to m* (first) and to the
    nearest neighbours of m* in the bank.
    """
    return (1 - F.softmax(to_support, dim=1)[:, 0]) * score


def counted(distances: Tensor, rows: int, seen: np.ndarray | None) -> Tensor:
    """Distances of the patches (B, h * w), h = `rows`; where nothing counts, the image's lowest (see AnomalyModel.seen)."""
    return within(distances.unflatten(1, (rows, -1)), seen).flatten(1)


def smooth_map(distances: Tensor, rows: int, images: Tensor) -> Tensor:
    """Distances of the patches (B, h * w), h = `rows`, as a map of the images' size (B, H, W)."""
    return gaussian_blur(upsample(rearrange(distances, "b (h w) -> b h w", h=rows), images.shape[-2:]), sigma=4.0)


class PatchCore(BankModel):
    """Fills a memory bank with patch features in one pass and keeps a coreset of it."""

    divisible = True

    def __init__(
        self,
        backbone: Annotated[str, Field(description="pretrained convolutional network")] = "wide_resnet50_2",
        layers: Annotated[tuple[str, ...], Field(min_length=1, description="its layers, finest first")] = (
            "layer2",
            "layer3",
        ),
        weights: Annotated[str, Field(description="pretrained, random, or a weights file")] = "pretrained",
        coreset_ratio: Annotated[float, Field(gt=0, le=1, description="part of the patches that is kept")] = 0.1,
        num_neighbors: Annotated[int, Field(ge=1, description="b of eq. 7; 1 switches the re-weighting off")] = 9,
        denoise: Annotated[
            Literal["none", "lof"], Field(description="lof: drop outliers among the patches of a position (SoftPatch)")
        ] = "none",
        noise_ratio: Annotated[float, Field(ge=0, lt=1, description="part of the patches that denoise drops")] = 0.15,
        max_memory: Annotated[
            str,
            Field(
                pattern=r"^(auto|\d+(\.\d+)?(MB|GB))$",
                description="for the patches of a fit, such as 4GB; beyond it they are reduced as they come; "
                "auto: half of what is free",
            ),
        ] = "auto",
        bank_dtype: Annotated[
            Literal["float32", "float16"], Field(description="of the bank in memory and in the model file")
        ] = "float32",
    ) -> None:
        super().__init__(coreset_ratio)  # M: (m, d)
        self.bank_dtype = getattr(torch, bank_dtype)
        if denoise != "none" and max_memory != "auto":
            raise ConfigError(f"denoise={denoise} compares the patches of all images; leave max_memory out")
        self.extractor = create_features(backbone, layers, weights)
        self.num_neighbors, self.denoise, self.noise_ratio = num_neighbors, denoise, noise_ratio
        self.max_memory = max_memory

    def embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """(B, 3, H, W) -> locally averaged patch features (B * h * w, d) and the grid (h, w)."""
        maps = [F.avg_pool2d(features, 3, 1, 1) for features in self.extractor(images)]
        size = maps[0].shape[-2:]
        maps = [maps[0], *(F.interpolate(m, size=size, mode="bilinear", align_corners=False) for m in maps[1:])]
        return rearrange(torch.cat(maps, 1), "b d h w -> (b h w) d"), tuple(size)

    def on_fit_start(self, fit: Fit) -> None:
        """Make ready for the patches of all images."""
        super().on_fit_start(fit)
        self._patches, self._filled, self._images, self._fit = None, 0, fit.num_images, fit

    @torch.no_grad()
    def training_step(self, batch: Batch, step: int) -> Iterator[Update]:
        """Copy the batch's patches that count into one buffer for all images; there is nothing to optimise."""
        for images, seen in parts_of(batch):
            patches, (h, w) = self.embed(images)
            if self._patches is None:
                self._patches = self.room(self._images * h * w, patches)
            patches = kept_cells(patches.view(len(images), h, w, -1), seen)
            if isinstance(self._patches, StreamedPatches):
                if batch.processes:
                    raise ConfigError(
                        "the first of several processes needs memory for the patches of all images; give a larger max_memory, "
                        "or leave --devices out"
                    )
                self._patches.add(patches)
                continue
            self._patches[self._filled : self._filled + len(patches)] = patches
            if self.denoise == "lof" and self._filled and self._positions != len(patches) // len(images):
                raise ConfigError(
                    "denoise=lof compares the patches of one position; give one region of interest for all images"
                )
            self._filled, self._positions = self._filled + len(patches), len(patches) // len(images)
        yield from ()

    def room(self, total: int, patches: Tensor) -> Tensor | StreamedPatches:
        """A buffer for all `total` patches like `patches` (n, d), or what reduces them where the memory does not suffice."""
        limit, count = memory_limit(self.max_memory, patches.device), entries(total, self.coreset_ratio)
        entry, row = bytes_of_row(patches, reduced(patches[:1], self._fit)[0])
        if self.denoise != "none" or total * row + count * entry <= limit:
            return patches.new_empty(total, patches.shape[1])
        log.warning(
            "%d patches do not fit into %s (max_memory), so they are reduced as they come; the bank is not the exact coreset",
            total,
            size_text(limit),
        )
        return StreamedPatches(total, count, limit, patches, lambda p: reduced(p, self._fit)[0])

    def merge(self, processes: Processes) -> None:
        """The patches of all images in the first process, in the order in which one process would have seen them."""
        self._filled = processes.collect(self._patches, self._filled)

    def on_fit_end(self, fit: Fit) -> None:
        """Keep the coreset: the patches that greedy farthest-first selection picks."""
        patches, factors = self._patches, None
        del self._patches, self._fit
        if isinstance(patches, StreamedPatches):
            self.keep_streamed(patches, fit)
            trim()
            return
        patches = patches[: self._filled]
        if self.denoise == "lof":
            factors = local_outlier_factors(patches.view(-1, self._positions, patches.shape[1])).flatten()  # (N,)
            kept = least_suspicious(factors, self.noise_ratio)
            patches, factors = compacted(patches, kept), factors[kept]
        self.keep(patches, factors, self.coreset(patches, fit), fit)
        trim()

    def keep_streamed(self, streamed: StreamedPatches, fit: Fit) -> None:
        """The coreset of what is left of the patches, and how far all of them are from it, in the log."""
        patches = streamed.left()
        features, generator = reduced(patches, fit)
        start = int(torch.randint(len(patches), (1,), generator=generator))
        picks, radius = covering(
            features,
            entries(streamed.seen, self.coreset_ratio),
            start,
            lambda done, n: fit.progress("coreset", done, n),
        )
        fit.log("covering_radius", radius)
        fit.log("covering_radius_at_most", radius + streamed.radius)
        self.keep(patches, None, picks, fit)

    def keep(self, patches: Tensor, factors: Tensor | None, picks: Tensor | slice, fit: Fit) -> None:
        """Make the bank of the patches (N, d) that were picked; `factors` (N,): how suspicious each is, or None."""
        self.memory_bank = patches[picks].to(self.bank_dtype)
        if not self.memory_bank.isfinite().all():
            raise TrainingError("float16 does not hold features as large as these; leave bank_dtype out")

    @torch.no_grad()
    def add_normal(self, fit: Fit) -> None:
        """The coreset of bank and new patches, which is `coreset_ratio` of the new ones larger than the bank was."""
        take_all(self, fit)
        new, seen = self._patches, self._filled
        del self._patches, self._fit
        if isinstance(new, StreamedPatches):
            new, seen = new.left(), new.seen
        new = new[:seen]
        together, picks = self.extended(new, entries(seen, self.coreset_ratio), fit)
        self.keep(together, self.suspicion(new), picks, fit)
        trim()

    def suspicion(self, new: Tensor) -> Tensor | None:
        """How suspicious each entry of the bank and each of the `new` patches (n, d) is, where that counts: (M + n,)."""
        return None

    def weighted(self, distances: Tensor, nearest: Tensor) -> Tensor:
        """Distances to the nearest entries of the bank, as they count for score and map: here as they are."""
        return distances

    def forward(self, images: Tensor) -> Prediction:
        """Distance of each patch to its nearest in the bank, as a smoothed map; the score is the re-weighted maximum."""
        patches, (h, w) = self.embed(images)
        distances, nearest = (rearrange(t, "(b l) 1 -> b l", l=h * w) for t in self.index.query(patches))
        distances = counted(self.weighted(distances, nearest), h, self.roi_mask)
        worst = distances.argmax(1, keepdim=True)  # the patch m_test,* of each image
        score = distances.gather(1, worst)[:, 0]
        if self.num_neighbors > 1:
            patch = rearrange(patches, "(b l) d -> b l d", l=h * w)[torch.arange(len(images)), worst[:, 0]]  # (B, d)
            star = self.memory_bank[nearest.gather(1, worst)[:, 0]].to(patches.dtype)  # m*: (B, d)
            count = min(self.num_neighbors, len(self.memory_bank))
            support = self.memory_bank[self.index.query(star, count)[1]]  # N_b(m*): (B, b, d), m* first
            score = reweight(score, torch.linalg.vector_norm(support - patch[:, None], dim=2))
        return Prediction(score, smooth_map(distances, h, images))

    def export_module(self) -> nn.Module:
        """The same by one product with the whole bank."""
        return ExportedPatchCore(self)


class ExportedPatchCore(nn.Module):
    """A fitted PatchCore without its search structure, for other runtimes: images -> score (B,), map (B, H, W).

    The neighbours N_b of every entry are looked up here, once, so that the graph has one product.
    """

    def __init__(self, model: PatchCore) -> None:
        super().__init__()
        self.model, self.neighbours = model, DenseNeighbours(model.memory_bank)
        count = min(model.num_neighbors, len(model.memory_bank))
        self.register_buffer(
            "support", model.index.query(model.memory_bank.float(), count)[1]
        )  # (M, b), the entry itself first

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """As PatchCore.forward; only the most anomalous patch of an image needs to know which entry is nearest."""
        patches, (h, w) = self.model.embed(images)
        partial, norms = self.neighbours(patches)  # (B * h * w, M)
        distances = (partial.amin(1, keepdim=True) + norms).clamp(min=0).sqrt()
        distances = self.model.weighted(distances, partial.argmin(1, keepdim=True)).view(-1, h * w)
        distances = counted(distances, h, self.model.roi_mask)
        worst = distances.argmax(1) + h * w * torch.arange(
            images.shape[0], device=images.device
        )  # among all patches: (B,)
        patch, star = patches.index_select(0, worst), partial.index_select(0, worst).argmin(1)
        support = F.embedding(
            F.embedding(star, self.support), self.model.memory_bank
        ).float()  # N_b(m*): (B, b, d), m* first
        to_support = torch.linalg.vector_norm(support - patch[:, None], dim=2)
        score = self.model.weighted(to_support[:, 0], star)  # the distance to m* itself, from the difference
        if self.model.num_neighbors > 1:
            score = reweight(score, to_support)
        return score, smooth_map(distances, h, images)
