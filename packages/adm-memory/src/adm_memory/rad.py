"""RAD: patches are compared where they lie, in the normal images that look most alike (arXiv 2601.22763, 2026)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
import torch.nn.functional as F
from adcore.backbones.features import create_features
from adcore.batching import split_batch
from adcore.maps import gaussian_blur, upsample, within
from adcore.model import AnomalyModel, Batch, Fit, Prediction, Update
from einops import rearrange
from pydantic import Field
from torch import Tensor

from adm_memory.bank import take_all
from adm_memory.views import layers_at, maps_and_descriptor, top_mean

SHARES = (0.25, 0.5, 0.75, 1.0)  # of the depth: blocks 3, 6, 9 and 11 of 12
BELOW = -2.0  # less than any cosine


def nearby_cosines(bank: Tensor, queries: Tensor, similar: Tensor, radius: int) -> Tensor:
    """Largest cosine of each query to entries at most `radius` rows and columns away, in the images `similar` to its own.

    `bank` (h * w, N, C) and `queries` (B, C, h, w) of unit length, `similar` (B, N) bool -> (B, h, w). The bank is read once:
    each position is multiplied with the queries around it.
    """
    h, w = queries.shape[-2:]
    side = 2 * radius + 1
    around = F.unfold(queries, side, padding=radius).unflatten(1, (-1, side * side))  # (B, C, o, h * w)
    cosines = torch.einsum("lnc,bcol->boln", bank, around)
    cosines = cosines.masked_fill(~similar[:, None, None], BELOW).amax(3)  # (B, o, h * w)
    placed = F.pad(cosines.unflatten(2, (h, w)), [radius] * 4, value=BELOW)
    # Offset (i, j) has, at each position of the bank, the query i - radius rows and j - radius columns further.
    windows = [(side - 1 - o // side, side - 1 - o % side) for o in range(side * side)]
    return torch.stack([placed[:, o, i : i + h, j : j + w] for o, (i, j) in enumerate(windows)]).amax(0)


def spread_out(bank: Tensor, count: int) -> Tensor:
    """Of each place's unit tokens (L, N, C) the images (L, count) that greedy farthest-first selection picks.

    It begins with the token that is most like the place's mean, whatever the order of the images.
    """
    picks = [torch.einsum("lnc,lc->ln", bank, bank.mean(1)).argmax(1)]
    nearest = torch.full(bank.shape[:2], BELOW, dtype=bank.dtype, device=bank.device)  # cosine to the nearest pick
    places = torch.arange(len(bank), device=bank.device)
    for _ in range(count - 1):
        nearest = torch.maximum(nearest, torch.einsum("lnc,lc->ln", bank, bank[places, picks[-1]]))
        nearest[places, picks[-1]] = -BELOW  # more than any cosine: nothing is picked twice
        picks.append(nearest.argmin(1))
    return torch.stack(picks, 1)


class RAD(AnomalyModel):
    """Keeps the tokens of several layers of all normal images, by position, and one descriptor of each image.

    The map is the cosine distance to the nearest token, mean over the layers; it suits parts that lie in one place.
    """

    def __init__(
        self,
        backbone: Annotated[str, Field(description="pretrained transformer or convolutional network")] = (
            "dinov2_vit_base_14"
        ),
        layers: Annotated[
            tuple[str, ...],
            Field(
                description="its layers; without any a transformer's blocks at a quarter, half, three quarters, the end"
            ),
        ] = (),
        weights: Annotated[str, Field(description="pretrained, random, or a weights file")] = "pretrained",
        similar_images: Annotated[
            int, Field(ge=1, description="training images, the most similar ones, that an image is compared with")
        ] = 150,
        radius: Annotated[
            int, Field(ge=0, le=16, description="patches that a token may have moved, in rows and in columns")
        ] = 1,
        top: Annotated[float, Field(gt=0, le=1, description="part of the pixels whose mean is the image's score")] = (
            0.01
        ),
        coreset_ratio: Annotated[
            float,
            Field(
                gt=0,
                le=1,
                description="part of the tokens of each place that is kept, those farthest from one another; below 1 all that "
                "are kept are searched, of whatever image",
            ),
        ] = 1.0,
    ) -> None:
        super().__init__()
        self.coreset_ratio = coreset_ratio
        layers = layers or tuple(layers_at(backbone, share, share)[0] for share in SHARES)
        self.extractor = create_features(backbone, layers, weights)
        self.similar_images, self.radius, self.top = similar_images, radius, top
        self.register_buffer("descriptors", torch.empty(0))  # of the training images: (N, C)
        for i in range(len(layers)):
            self.register_buffer(f"bank_{i}", torch.empty(0))  # unit tokens of layer i: (h * w, N, C)

    @property
    def banks(self) -> list[Tensor]:
        """The bank of each layer."""
        return [getattr(self, f"bank_{i}") for i in range(len(self.extractor.channels))]

    def described(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Tokens of each layer (B, C, h, w), and a descriptor (B, C) of each image, all of unit length."""
        maps, whole = maps_and_descriptor(self.extractor, images)
        return [F.normalize(m, dim=1) for m in maps], whole

    def on_fit_start(self, fit: Fit) -> None:
        """Make ready for all images."""
        self._images, self._descriptors = fit.num_images, []
        self._banks: list[Tensor] = []

    @torch.no_grad()
    def training_step(self, batch: Batch, step: int) -> Iterator[Update]:
        """Put the batch's tokens into the banks; there is nothing to optimise."""
        for images in split_batch(batch.images):
            maps, whole = self.described(images)
            first = sum(map(len, self._descriptors))
            self._banks = self._banks or [m.new_empty(m[0, 0].numel(), self._images, m.shape[1]) for m in maps]
            for bank, m in zip(self._banks, maps, strict=True):
                bank[:, first : first + len(m)] = rearrange(m, "b c h w -> (h w) b c")
            self._descriptors.append(whole)
        yield from ()

    def on_fit_end(self, fit: Fit) -> None:
        """The banks, of the images that came."""
        banks, descriptors = self._collected()
        self.keep(banks, descriptors)

    @torch.no_grad()
    def add_normal(self, fit: Fit) -> None:
        """The banks and the new tokens, or a coreset of both, as large as that of a fit on all images.

        While the banks hold every token of the images before, the result is that of a fit on all images.
        """
        take_all(self, fit)
        new, descriptors = self._collected()
        fit.log("entries_before", sum(bank[..., 0].numel() for bank in self.banks))
        together = [torch.cat(pair, 1) for pair in zip(self.banks, new, strict=True)]
        self.keep(together, torch.cat([self.descriptors, descriptors]))
        fit.log("entries_after", sum(bank[..., 0].numel() for bank in self.banks))

    def keep(self, banks: list[Tensor], descriptors: Tensor) -> None:
        """Take unit tokens (h * w, n, C) of each layer, or a coreset of them, and the descriptors (N, C) of all images."""
        count = max(1, round(self.coreset_ratio * len(descriptors)))
        for i, bank in enumerate(banks):
            if count < bank.shape[1]:
                bank = torch.take_along_dim(bank, spread_out(bank, count)[:, :, None], 1)
            setattr(self, f"bank_{i}", bank.contiguous())
        self.descriptors = descriptors

    def _collected(self) -> tuple[list[Tensor], Tensor]:
        """Tokens of each layer (h * w, n, C) and descriptors (n, C) of the n images that came."""
        descriptors = torch.cat(self._descriptors)
        banks = [bank[:, : len(descriptors)] for bank in self._banks]
        del self._banks, self._descriptors
        return banks, descriptors

    def forward(self, images: Tensor) -> Prediction:
        """Cosine distance of each token to the nearest around its place, as a smoothed map; the score is its top mean."""
        maps, whole = self.described(images)
        count = min(self.similar_images, len(self.descriptors))
        likeness = whole @ self.descriptors.t()  # (B, N)
        similar = torch.zeros_like(likeness).scatter(1, likeness.topk(count, dim=1).indices, 1.0) > 0
        if (kept := self.banks[0].shape[1]) < len(self.descriptors):
            similar = likeness.new_ones(len(images), kept) > 0
        distances = [
            upsample(within(1 - nearby_cosines(bank, m, similar, self.radius), self.roi_mask), images.shape[-2:])
            for bank, m in zip(self.banks, maps, strict=True)
        ]
        anomaly_map = gaussian_blur(torch.stack(distances).mean(0), sigma=1.0, kernel_size=5)
        return Prediction(top_mean(anomaly_map, self.top, self.roi_mask), anomaly_map)
