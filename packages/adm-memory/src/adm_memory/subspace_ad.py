"""SubspaceAD: what normal patch tokens have in common is a subspace, anomalies stand out of it (arXiv 2602.23013, 2026)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
from adcore.backbones.features import create_features
from adcore.batching import parts_of
from adcore.maps import gaussian_blur, kept_cells, upsample, within
from adcore.model import AnomalyModel, Batch, Fit, Prediction, Update
from einops import rearrange
from pydantic import Field
from torch import Tensor

from adm_memory.pca import StreamingPCA
from adm_memory.views import joined, layers_at, top_mean, turned_seen

FIRST, LAST = 0.55, 0.70  # blocks 22 to 28 of 40 in the paper, as shares of the depth
FEW, VIEWS = 16, 30  # up to so many images are turned into so many views


class SubspaceAD(AnomalyModel):
    """A PCA of patch tokens from the middle of a frozen transformer; the score is the residual outside of its subspace."""

    def __init__(
        self,
        backbone: Annotated[str, Field(description="pretrained transformer or convolutional network")] = (
            "dinov2reg_vit_base_14"
        ),
        layers: Annotated[
            tuple[str, ...],
            Field(description="its layers; without any the blocks at 55 to 70 % of a transformer's depth"),
        ] = (),
        weights: Annotated[str, Field(description="pretrained, random, or a weights file")] = "pretrained",
        variance: Annotated[
            float, Field(gt=0, lt=1, description="part of the variance that the subspace keeps")
        ] = 0.99,
        views: Annotated[
            int | None,
            Field(
                ge=1,
                description=f"turned views of each training image; else {VIEWS} for up to {FEW} images, 1 for more",
            ),
        ] = None,
        top: Annotated[
            float, Field(gt=0, le=1, description="part of the patches whose mean is the image's score")
        ] = 0.01,
    ) -> None:
        super().__init__()
        self.extractor = create_features(backbone, layers or layers_at(backbone, FIRST, LAST), weights)
        self.variance, self.views, self.top = variance, views, top
        self.register_buffer("mean", torch.empty(0))  # mu: (C,)
        self.register_buffer("directions", torch.empty(0, 0))  # principal components as rows: (k, C)

    def tokens(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> patch tokens (B, h, w, C), the mean of the layers."""
        return rearrange(joined(self.extractor(images)), "b c h w -> b h w c")

    def on_fit_start(self, fit: Fit) -> None:
        """Begin a new stream of tokens."""
        self._pca: StreamingPCA | None = None
        self._views = self.views or (VIEWS if fit.num_images <= FEW else 1)
        self._images = fit.num_images

    @torch.no_grad()
    def training_step(self, batch: Batch, step: int) -> Iterator[Update]:
        """Feed the tokens of all views to the PCA; there is nothing to optimise."""
        for images, seen in parts_of(batch):
            for view, shown in turned_seen(images, seen, self._views):
                tokens = self.tokens(view)
                if self._pca is None:
                    self._pca = StreamingPCA(self._images * self._views * tokens[0, :, :, 0].numel())
                self._pca.add(kept_cells(tokens, shown))
        yield from ()

    def on_fit_end(self, fit: Fit) -> None:
        """The subspace."""
        mean, _, directions = self._pca.components(self.variance)
        self.mean, self.directions = mean.float(), directions.contiguous()
        del self._pca

    def forward(self, images: Tensor) -> Prediction:
        """Squared distance of each patch from the subspace, as a smoothed map; the score is the mean of the largest."""
        centred = self.tokens(images) - self.mean
        residual = (centred - centred @ self.directions.t() @ self.directions).square().sum(3)  # (B, h, w)
        residual = within(residual, self.roi_mask)
        anomaly_map = gaussian_blur(upsample(residual, images.shape[-2:]), sigma=4.0)
        return Prediction(top_mean(residual, self.top, self.roi_mask), anomaly_map)
