"""MuSc: unlabelled images score one another, since what is odd in one has no like in most others.

Li et al., MuSc: Zero-Shot Industrial Anomaly Classification and Segmentation with Mutual Scoring of the Unlabeled Images,
ICLR 2024.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Annotated

import torch
import torch.nn.functional as F
from adcore.backbones.features import create_features
from adcore.errors import ConfigError, DataError
from adcore.maps import highest, upsample, within
from adcore.model import BatchModel, Prediction
from einops import rearrange
from pydantic import Field
from torch import Tensor

from adm_memory.views import layers_at, maps_and_descriptor

SHARES = (0.25, 0.5, 0.75, 1.0)  # of a transformer's depth
BLOCK_BYTES = 2**29  # of the tokens of images that are in memory together
OWN = 16  # images that are compared with all others together
ROWS_BYTES = 2**26  # of similarities that are computed together


def aggregated(tokens: Tensor, degree: int) -> Tensor:
    """Tokens (B, C, h, w) as means of their `degree` x `degree` neighbourhoods, of unit length: (B, h * w, C). LNAMD."""
    pooled = F.avg_pool2d(tokens, degree, stride=1, padding=degree // 2, count_include_pad=False)
    return F.normalize(rearrange(pooled, "b c h w -> b (h w) c"), dim=2)


def nearest_distances(queries: Tensor, others: Tensor) -> Tensor:
    """Distance of each token (Q, C) to the nearest token of each other image (N, P, C), all of unit length: (Q, N)."""
    keys, patches = others.flatten(0, 1).t(), others.shape[1]  # (C, N * P)
    step = max(1, ROWS_BYTES // (4 * keys.shape[1]))
    nearest = [(part @ keys).unflatten(1, (-1, patches)).amax(2) for part in queries.split(step)]
    return (2 - 2 * torch.cat(nearest)).clamp(min=0).sqrt()


def lowest_mean(distances: Tensor, share: float) -> Tensor:
    """Mean of the lowest `share` of (P, N), at least of one: (P,). An interval average keeps odd images out."""
    count = max(1, int(share * distances.shape[1]))
    return distances.topk(count, dim=1, largest=False).values.mean(1)


def smoothed_scores(scores: Tensor, descriptors: Tensor, neighbours: tuple[int, ...]) -> Tensor:
    """Scores (N,) as means over each image's most similar ones, weighted by similarity: RsCIN, for several window sizes.

    `descriptors` (N, C) are of unit length; an image is the most similar one to itself.
    """
    likeness = descriptors @ descriptors.t()  # W
    results = []
    for k in neighbours:
        kept = torch.zeros_like(likeness).scatter(1, likeness.topk(min(k, len(scores)), dim=1).indices, 1.0)
        weights = likeness * kept
        results.append(weights @ scores / weights.sum(1))
    return torch.stack(results).mean(0)


@dataclass
class Described:
    """One image."""

    grids: list[Tensor]  # of each layer: features (1, C, h, w), or scores (h, w)
    size: tuple[int, int]  # height and width
    descriptor: Tensor  # (C,), of unit length


@dataclass
class Block:
    """Images that are in memory together."""

    images: list[Described]
    tokens: list[Tensor]  # of each layer (degrees, N, h * w, C), of unit length


class MuSc(BatchModel):
    """Scores the patches of each image by their distances to all other images of the folder; nothing is trained.

    Most images should be normal. Time grows with the square of their number; memory does not, since images are read in blocks.
    """

    def __init__(
        self,
        backbone: Annotated[str, Field(description="pretrained transformer or convolutional network")] = (
            "dinov2_vit_base_14"
        ),
        layers: Annotated[
            tuple[str, ...],
            Field(description="its layers; without any a transformer's blocks at each quarter of its depth"),
        ] = (),
        weights: Annotated[str, Field(description="pretrained, random, or a weights file")] = "pretrained",
        degrees: Annotated[
            tuple[int, ...], Field(min_length=1, description="sides of the neighbourhoods of a patch; odd numbers")
        ] = (1, 3, 5),
        lowest: Annotated[
            float, Field(gt=0, le=1, description="part of the other images, the most similar ones, that scores a patch")
        ] = 0.3,
        neighbours: Annotated[
            tuple[int, ...],
            Field(description="similar images whose scores are averaged; none: scores stay as they are"),
        ] = (1, 2, 3),
    ) -> None:
        super().__init__()
        if any(degree < 1 or degree % 2 == 0 for degree in degrees):
            raise ConfigError(f"degrees {degrees} must be odd numbers from 1 on")
        if any(k < 1 for k in neighbours):
            raise ConfigError(f"neighbours {neighbours} must be numbers from 1 on")
        layers = layers or tuple(layers_at(backbone, share, share)[0] for share in SHARES)
        self.extractor = create_features(backbone, layers, weights)
        self.degrees, self.lowest, self.neighbours = degrees, lowest, neighbours

    def described(self, image: Tensor) -> Described:
        """The features of an image (3, H, W)."""
        maps, whole = maps_and_descriptor(self.extractor, image[None])
        return Described(maps, tuple(image.shape[-2:]), whole[0])

    @torch.no_grad()
    def score_all(self, images: Iterable[Tensor]) -> Iterator[Prediction]:
        """Mutual scoring, then scores averaged over similar images; an image's own score is the maximum of its map."""
        found = list(self._mutual(images))
        scores = torch.cat([highest(self._map(one), self.roi_mask) for one in found])
        if self.neighbours:
            scores = smoothed_scores(scores, torch.stack([one.descriptor for one in found]), self.neighbours)
        for score, one in zip(scores, found, strict=True):
            yield Prediction(score[None], self._map(one))

    def _map(self, one: Described) -> Tensor:
        """(1, H, W): the mean over layers."""
        return torch.stack([upsample(within(grid[None], self.roi_mask), one.size) for grid in one.grids]).mean(0)

    def _mutual(self, images: Iterable[Tensor]) -> Iterator[Described]:
        """Each image with the scores of its patches, (h, w) of each layer, in place of its features."""
        blocks, start = self._blocks(images), 0
        whole = next(blocks, None)
        alone = whole is not None and next(blocks, None) is None  # all images are in one block, and are read once
        for own in self._parts(whole) if alone else self._blocks(images, OWN):
            found: list[list[Tensor]] = [[] for _ in own.tokens]  # of each layer (degrees, n, h * w, M)
            for others in [whole] if alone else self._blocks(images):
                for layer, (ours, theirs) in enumerate(zip(own.tokens, others.tokens, strict=True)):
                    found[layer].append(self._distances(ours, theirs))
            distances = [torch.cat(parts, 3) for parts in found]
            for place, one in enumerate(own.images):
                if distances[0].shape[3] < 2:
                    raise DataError(
                        "MuSc compares images with one another, and this one is alone; give a folder of images"
                    )
                kept = torch.arange(distances[0].shape[3], device=distances[0].device) != start + place
                scores = [self._scores(layer[:, place][:, :, kept]) for layer in distances]
                grids = [score.view(grid.shape[-2:]) for score, grid in zip(scores, one.grids, strict=True)]
                yield Described(grids, one.size, one.descriptor)
            start += len(own.images)

    def _distances(self, own: Tensor, others: Tensor) -> Tensor:
        """Tokens (degrees, n, P, C) and (degrees, M, P, C) -> distances to the nearest of each image, (degrees, n, P, M)."""
        if own.shape[2:] != others.shape[2:]:
            raise DataError("images that are scored together must have one size after the resize")
        found = [nearest_distances(a.flatten(0, 1), b) for a, b in zip(own, others, strict=True)]
        return torch.stack(found).unflatten(1, own.shape[1:3])

    def _scores(self, distances: Tensor) -> Tensor:
        """(degrees, h * w, N) -> (h * w,): the mean over degrees of what the most similar images say."""
        return torch.stack([lowest_mean(one, self.lowest) for one in distances]).mean(0)

    def _blocks(self, images: Iterable[Tensor], most: int | None = None) -> Iterator[Block]:
        """The images in blocks of at most `most`, and no more than BLOCK_BYTES hold."""
        iterator = iter(images)
        found = [self.described(image) for image in islice(iterator, 1)]
        if not found:
            return
        size = max(1, BLOCK_BYTES // sum(4 * (1 + len(self.degrees)) * m.numel() for m in found[0].grids))
        size = min(size, most or size)
        found += [self.described(image) for image in islice(iterator, size - 1)]
        while found:
            yield self._block(found)
            found = [self.described(image) for image in islice(iterator, size)]

    def _block(self, images: list[Described]) -> Block:
        layers = range(len(images[0].grids))
        if any(one.grids[layer].shape != images[0].grids[layer].shape for one in images for layer in layers):
            raise DataError("images that are scored together must have one size after the resize")
        together = (torch.cat([one.grids[layer] for one in images]) for layer in layers)
        return Block(images, [torch.stack([aggregated(grids, r) for r in self.degrees]) for grids in together])

    @staticmethod
    def _parts(block: Block) -> Iterator[Block]:
        """The same images, OWN at a time."""
        for start in range(0, len(block.images), OWN):
            part = slice(start, start + OWN)
            yield Block(block.images[part], [tokens[:, part] for tokens in block.tokens])
