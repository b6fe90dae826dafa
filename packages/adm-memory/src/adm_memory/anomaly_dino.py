"""AnomalyDINO: few-shot search among the patches of DINOv2 (Damm et al., WACV 2025; arXiv 2405.14529)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
import torch.nn.functional as F
from adcore.backbones.features import create_features
from adcore.batching import parts_of
from adcore.errors import ConfigError, TrainingError
from adcore.maps import gaussian_blur, seen_cells, upsample, within
from adcore.model import Batch, Fit, Prediction, Update
from einops import rearrange
from pydantic import Field
from torch import Tensor, nn

from adm_memory.bank import BankModel, entries, take_all
from adm_memory.neighbours import DenseNeighbours
from adm_memory.views import joined, layers_at, top_mean, turned_seen

FEW, VIEWS = 16, 8  # up to so many images are turned into so many views
BORDER, CENTRE_SHARE = 0.2, 0.35  # the object is what fills at least this share of the image without its border


def foreground(tokens: Tensor, threshold: float) -> Tensor:
    """Where the object is, for patch tokens (h, w, C) of one image: (h, w) bool.

    The first principal component tells object from background; its sign is the one that fills the middle. The mask is
    dilated and closed, so that no defect at the object's edge is cut off.
    """
    h, w, _ = tokens.shape
    flat = tokens.flatten(0, 1)
    centred = flat - flat.mean(0)
    component = centred @ torch.linalg.svd(centred, full_matrices=False).Vh[0]
    component = component.view(h, w)
    mask = component > threshold
    middle = mask[int(BORDER * h) : int((1 - BORDER) * h), int(BORDER * w) : int((1 - BORDER) * w)]
    if middle.float().mean() <= CENTRE_SHARE:
        mask = -component > threshold
    grown = dilated(dilated(mask))
    return ~dilated(~grown)


def dilated(mask: Tensor) -> Tensor:
    """(h, w) bool with its neighbourhoods of 3 x 3."""
    return F.max_pool2d(mask[None].float(), 3, 1, 1)[0] > 0


class AnomalyDINO(BankModel):
    """A bank of the normal images' patch tokens; the score is the cosine distance to the nearest of them."""

    def __init__(
        self,
        backbone: Annotated[str, Field(description="pretrained transformer or convolutional network")] = (
            "dinov2_vit_small_14"
        ),
        layers: Annotated[
            tuple[str, ...], Field(description="its layers; without any a transformer's last block")
        ] = (),
        weights: Annotated[str, Field(description="pretrained, random, or a weights file")] = "pretrained",
        views: Annotated[
            int | None,
            Field(
                ge=1,
                description=f"turned views of each training image; else {VIEWS} for up to {FEW} images, 1 for more",
            ),
        ] = None,
        masking: Annotated[bool, Field(description="score the object alone, not its background")] = False,
        mask_threshold: Annotated[
            float, Field(description="first principal component above which a patch is the object's")
        ] = 10.0,
        coreset_ratio: Annotated[float, Field(gt=0, le=1, description="part of the patches that is kept")] = 1.0,
        top: Annotated[
            float, Field(gt=0, le=1, description="part of the patches whose mean is the image's score")
        ] = 0.01,
    ) -> None:
        super().__init__(coreset_ratio)  # M: (m, C), of unit length
        self.extractor = create_features(backbone, layers or layers_at(backbone, 1, 1), weights)
        self.views, self.masking, self.mask_threshold = views, masking, mask_threshold
        self.top = top

    def tokens(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> patch tokens (B, h, w, C)."""
        return rearrange(joined(self.extractor(images)), "b c h w -> b h w c")

    def kept(self, tokens: Tensor) -> Tensor:
        """Which of the tokens (B, h, w, C) count: (B, h, w) bool."""
        if not self.masking:
            return torch.ones(tokens.shape[:3], dtype=torch.bool, device=tokens.device)
        return torch.stack([foreground(one, self.mask_threshold) for one in tokens])

    def on_fit_start(self, fit: Fit) -> None:
        """Choose the number of views."""
        super().on_fit_start(fit)
        self._parts: list[Tensor] = []
        self._views = self.views or (VIEWS if fit.num_images <= FEW else 1)

    @torch.no_grad()
    def training_step(self, batch: Batch, step: int) -> Iterator[Update]:
        """Keep the tokens of all views; there is nothing to optimise."""
        for images, seen in parts_of(batch):
            for view, shown in turned_seen(images, seen, self._views):
                tokens = self.tokens(view)
                kept = self.kept(tokens) if shown is None else self.kept(tokens) & seen_cells(shown, tokens)
                self._parts.append(F.normalize(tokens, dim=3)[kept])
        yield from ()

    def on_fit_end(self, fit: Fit) -> None:
        """The bank, or a coreset of it."""
        bank = self._collected()
        self.memory_bank = bank[self.coreset(bank, fit)]

    @torch.no_grad()
    def add_normal(self, fit: Fit) -> None:
        """The bank and the new tokens, or a coreset of both, `coreset_ratio` of the new ones larger than the bank was."""
        take_all(self, fit)
        new = self._collected()
        together, picks = self.extended(new, entries(len(new), self.coreset_ratio), fit)
        self.memory_bank = together[picks]

    def _collected(self) -> Tensor:
        """The tokens of all images (N, C)."""
        tokens = torch.cat(self._parts)
        del self._parts
        if not len(tokens):
            raise TrainingError(
                "no patch of any training image is the object's; lower mask_threshold, or masking=false"
            )
        return tokens

    def forward(self, images: Tensor) -> Prediction:
        """Cosine distance of each patch to its nearest, as a smoothed map; the score is the mean of the largest."""
        tokens = self.tokens(images)
        nearest = self.index.query(F.normalize(tokens, dim=3).flatten(0, 2))[0]  # (B * h * w, 1)
        return Prediction(*self.judged(nearest, tokens, images))

    def judged(self, nearest: Tensor, tokens: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """Score (B,) and map (B, H, W) from the patches' Euclidean distances to their nearest entries."""
        distances = nearest.square().view(tokens.shape[:3]) / 2  # of unit vectors: 1 - cos
        if self.masking:
            distances = distances * self.kept(tokens)
        distances = within(distances, self.roi_mask)
        anomaly_map = gaussian_blur(upsample(distances, images.shape[-2:]), sigma=4.0)
        return top_mean(distances, self.top, self.roi_mask), anomaly_map

    def export_module(self) -> nn.Module:
        """The same by one product with the whole bank; ConfigError with `masking`, whose components no graph has."""
        if self.masking:
            raise ConfigError("AnomalyDINO with masking=true cannot be exported; train it with masking=false")
        return ExportedAnomalyDINO(self)


class ExportedAnomalyDINO(nn.Module):
    """A fitted AnomalyDINO without its search structure, for other runtimes: images -> score (B,), map (B, H, W)."""

    def __init__(self, model: AnomalyDINO) -> None:
        super().__init__()
        self.model, self.neighbours = model, DenseNeighbours(model.memory_bank)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """As AnomalyDINO.forward."""
        tokens = self.model.tokens(images)
        partial, norms = self.neighbours(F.normalize(tokens, dim=3).flatten(0, 2))
        return self.model.judged((partial.amin(1, keepdim=True) + norms).clamp(min=0).sqrt(), tokens, images)
