"""SuperADD: images in overlapping crops, and patches of several layers, each searched in its own bank (arXiv 2605.14808)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Any, Self

import torch
from adcore.backbones.features import create_features
from adcore.batching import parts_of
from adcore.errors import ConfigError
from adcore.maps import gaussian_blur, kept_cells, upsample, within
from adcore.model import AnomalyModel, Batch, Fit, Prediction, Update
from adcore.registry import backbone_card
from einops import rearrange
from pydantic import Field
from torch import Tensor, nn

from adm_memory.bank import coreset_of, entries, extended, take_all
from adm_memory.neighbours import DenseNeighbours, NearestNeighbours
from adm_memory.views import layers_at, top_mean

SHARES = (0.25, 0.5, 0.75, 1.0)  # of a transformer's depth
Factor = Annotated[float, Field(gt=0)]


def crop_spans(side: int, crop: int, overlap: int, unit: int) -> list[tuple[int, tuple[int, int]]]:
    """Where crops begin along a side of an image, and from where to where in itself each is used.

    As few as cover the side, spread evenly; neighbours share at least `overlap` pixels, and each gives half of them. All
    lengths are multiples of `unit`. One crop where the image is no larger.
    """
    if side <= crop:
        return [(0, (0, side))]
    count = 1 + -(-(side - crop) // (crop - overlap))
    starts = [(side - crop) // unit * i // (count - 1) * unit for i in range(count)]
    cuts = [0, *((a + crop + b) // (2 * unit) * unit for a, b in pairwise(starts)), side]
    return [(start, (a - start, b - start)) for start, a, b in zip(starts, cuts[:-1], cuts[1:], strict=True)]


def part(span: tuple[int, int], stride: int) -> slice:
    """Pixels as rows or columns of a map."""
    return slice(span[0] // stride, span[1] // stride)


class LayerBank(nn.Module):
    """The normal patches (M, C) of one layer, and the search among them."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("patches", torch.empty(0))
        self._index: NearestNeighbours | None = None  # made when first needed

    @property
    def index(self) -> NearestNeighbours:
        """The patches, prepared for searching."""
        if self._index is None:
            self._index = NearestNeighbours(self.patches)
        return self._index

    def fill(self, patches: Tensor) -> None:
        """Take other patches."""
        self.patches, self._index = patches, None

    def warm_up(self) -> None:
        """Index the patches of a fitted model."""
        if len(self.patches):
            self.index  # noqa: B018 (made when first asked for)

    def forward(self, queries: Tensor) -> Tensor:
        """Euclidean distances to the nearest patches: (Q, C) -> (Q,)."""
        return self.index.query(queries)[0][:, 0]

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        self._index = None  # the patches move to another device or type
        return super()._apply(*args, **kwargs)


class SuperADD(AnomalyModel):
    """Sees an image in overlapping crops, as large as the network likes, so that large images keep their details.

    Training images are also seen darker and brighter. A patch's score is the mean over the layers of its distance to the
    nearest normal patch of that layer, as a root mean square over channels, so that wide layers do not outweigh others.
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
        crop: Annotated[
            int, Field(ge=1, description="side of the crops, a multiple of the layers' largest stride")
        ] = 224,
        overlap: Annotated[int, Field(ge=0, description="pixels that neighbouring crops share at least")] = 28,
        brightness: Annotated[
            tuple[Factor, ...],
            Field(min_length=1, description="factors of brightness with which training images are seen"),
        ] = (0.8, 1.0, 1.2),
        coreset_ratio: Annotated[float, Field(gt=0, le=1, description="part of each layer's patches that is kept")] = (
            0.1
        ),
        top: Annotated[float, Field(gt=0, le=1, description="part of the pixels whose mean is the image's score")] = (
            0.001
        ),
    ) -> None:
        super().__init__()
        layers = layers or tuple(layers_at(backbone, share, share)[0] for share in SHARES)
        self.extractor = create_features(backbone, layers, weights)
        self.unit = max(self.extractor.strides)  # crops begin and end between patches of every layer
        if crop % self.unit or overlap % self.unit or overlap >= crop:
            raise ConfigError(
                f"crop={crop}, overlap={overlap}: both must be multiples of {self.unit}, and the overlap the smaller one"
            )
        self.crop, self.overlap, self.brightness = crop, overlap, brightness
        self.coreset_ratio, self.top = coreset_ratio, top
        card = backbone_card(backbone)
        zero = torch.tensor([-m / s for m, s in zip(card.mean, card.std, strict=True)])  # black, as the network sees it
        self.register_buffer("black", zero[:, None, None], persistent=False)
        self.banks = nn.ModuleList(LayerBank() for _ in layers)

    def check_run(self, images: int, size: tuple[int, int]) -> None:
        """Refuse images that crops cannot cover without a rest."""
        if any(side % self.unit for side in size):
            raise ConfigError(f"image_size: both sides must be multiples of {self.unit}, not {size[0]}x{size[1]}")

    def tokens(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> patches of each layer (B, C, H / stride, W / stride).

        Where crops overlap, a patch is taken from the one whose border is farther away.
        """
        spans = [crop_spans(side, self.crop, self.overlap, self.unit) for side in images.shape[-2:]]
        rows = []  # of each row of crops: one map a layer
        for top, rows_kept in spans[0]:
            parts = []
            for left, columns_kept in spans[1]:
                maps = self.extractor(images[:, :, top : top + self.crop, left : left + self.crop])
                strides = self.extractor.strides
                parts.append(
                    [m[:, :, part(rows_kept, s), part(columns_kept, s)] for m, s in zip(maps, strides, strict=True)]
                )
            rows.append([torch.cat(maps, 3) for maps in zip(*parts, strict=True)])
        return [torch.cat(maps, 2) for maps in zip(*rows, strict=True)]

    def on_fit_start(self, fit: Fit) -> None:
        """Forget all patches."""
        self._parts: list[list[Tensor]] = [[] for _ in self.banks]

    @torch.no_grad()
    def training_step(self, batch: Batch, step: int) -> Iterator[Update]:
        """Keep the patches of darker and brighter images, too; there is nothing to optimise."""
        for images, seen in parts_of(batch):
            for factor in self.brightness:
                lit = self.black + factor * (images - self.black)
                for kept, tokens in zip(self._parts, self.tokens(lit), strict=True):
                    kept.append(kept_cells(rearrange(tokens, "b c h w -> b h w c"), seen))
        yield from ()

    def on_fit_end(self, fit: Fit) -> None:
        """A coreset of each layer's patches."""
        for bank in self.banks:
            patches = torch.cat(self._parts.pop(0))
            bank.fill(patches[coreset_of(patches, self.coreset_ratio, fit)])
        del self._parts

    @torch.no_grad()
    def add_normal(self, fit: Fit) -> None:
        """Of each layer the coreset of bank and new patches, `coreset_ratio` of the new ones larger than the bank was."""
        take_all(self, fit)
        fit.log("entries_before", sum(len(bank.patches) for bank in self.banks))
        for bank in self.banks:
            new = torch.cat(self._parts.pop(0))
            together, picks = extended(bank.patches, new, entries(len(new), self.coreset_ratio), fit)
            bank.fill(together[picks])
        del self._parts
        fit.log("entries_after", sum(len(bank.patches) for bank in self.banks))

    def forward(self, images: Tensor) -> Prediction:
        """The distances as a smoothed map; the score is the mean of its highest values."""
        return Prediction(*self.judged(images, self.banks))

    def judged(self, images: Tensor, banks: nn.ModuleList) -> tuple[Tensor, Tensor]:
        """Score (B,) and map (B, H, W), with `banks` that give the distances (Q, C) -> (Q,) of each layer."""
        maps = []
        for tokens, bank in zip(self.tokens(images), banks, strict=True):
            _, c, h, w = tokens.shape
            distances = bank(rearrange(tokens, "b c h w -> (b h w) c")) / c**0.5
            maps.append(upsample(within(distances.view(-1, h, w), self.roi_mask), images.shape[-2:]))
        anomaly_map = gaussian_blur(torch.stack(maps).mean(0), sigma=4.0)
        return top_mean(anomaly_map, self.top, self.roi_mask), anomaly_map

    def export_module(self) -> nn.Module:
        """The same by one product with each bank."""
        return ExportedSuperADD(self)


class DenseBank(nn.Module):
    """A LayerBank without its search structure."""

    def __init__(self, patches: Tensor) -> None:
        super().__init__()
        self.neighbours = DenseNeighbours(patches)

    def forward(self, queries: Tensor) -> Tensor:
        """As LayerBank.forward."""
        partial, norms = self.neighbours(queries)
        return (partial.amin(1, keepdim=True) + norms).clamp(min=0).sqrt()[:, 0]


class ExportedSuperADD(nn.Module):
    """A fitted SuperADD for other runtimes: images -> score (B,), map (B, H, W)."""

    def __init__(self, model: SuperADD) -> None:
        super().__init__()
        self.model, self.dense = model, nn.ModuleList(DenseBank(bank.patches) for bank in model.banks)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """As SuperADD.forward."""
        return self.model.judged(images, self.dense)
