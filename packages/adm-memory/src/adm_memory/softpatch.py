"""SoftPatch: a bank that defective training images do not spoil (Jiang et al., NeurIPS 2022)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from adcore.model import Fit
from pydantic import Field
from torch import Tensor

from adm_memory.denoise import local_outlier_factors
from adm_memory.patchcore import PatchCore


class SoftPatch(PatchCore):
    """PatchCore on training images of which some may be defective, unmarked.

    The patches that are outliers among those of their position are dropped. A distance to an entry that stays is multiplied
    with the outlier factor of that entry: what is near a suspicious entry is suspicious, too.
    """

    def __init__(
        self,
        backbone: Annotated[str, Field(description="pretrained convolutional network")] = "wide_resnet50_2",
        layers: Annotated[tuple[str, ...], Field(min_length=1, description="its layers, finest first")] = (
            "layer2",
            "layer3",
        ),
        weights: Annotated[str, Field(description="pretrained, random, or a weights file")] = "pretrained",
        coreset_ratio: Annotated[float, Field(gt=0, le=1, description="part of the patches that is kept")] = 0.1,
        num_neighbors: Annotated[int, Field(ge=1, description="of PatchCore's re-weighting; 1 switches it off")] = 1,
        noise_ratio: Annotated[float, Field(ge=0, lt=1, description="tau: part of the patches that is dropped")] = 0.15,
        soft_weights: Annotated[bool, Field(description="multiply distances with the entries' outlier factors")] = True,
    ) -> None:
        denoise: Literal["lof"] = "lof"
        super().__init__(backbone, layers, weights, coreset_ratio, num_neighbors, denoise, noise_ratio)
        self.soft_weights = soft_weights
        self.register_buffer("entry_weights", torch.empty(0))  # alpha: (m,)

    def keep(self, patches: Tensor, factors: Tensor | None, picks: Tensor | slice, fit: Fit) -> None:
        """The bank, and the outlier factor of each of its entries."""
        super().keep(patches, factors, picks, fit)
        self.entry_weights = factors[picks] if self.soft_weights else torch.ones_like(factors[picks])

    def suspicion(self, new: Tensor) -> Tensor:
        """Outlier factors of the new patches among themselves; none is dropped, since a person has called them normal."""
        factors = local_outlier_factors(new.view(-1, self._positions, new.shape[1])).flatten()
        return torch.cat([self.entry_weights, factors])

    def weighted(self, distances: Tensor, nearest: Tensor) -> Tensor:
        """Each distance times the outlier factor of the nearest entry."""
        return distances * self.entry_weights[nearest]
