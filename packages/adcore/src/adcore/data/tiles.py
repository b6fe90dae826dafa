"""Which tiles of an image train a model: one in each pass, or all of them, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from adcore_runtime.tiles import Size, Tile
from torch import Tensor

from adcore.data.samples import DatasetReader, Sample
from adcore.data.splits import derive_seed
from adcore.errors import DataError
from adcore.model import Batch
from adcore.preprocess import Preprocess


def seen_tiles(preprocess: Preprocess, plane: Size, seen: np.ndarray | None) -> list[Tile]:
    """The tiles of a plane that hold a pixel that counts: `seen` (H, W) bool of the plane; None: all of them."""
    return [tile for tile in preprocess.tiles(plane) if seen is None or seen[tile].any()]


def drawn_tile(
    preprocess: Preprocess, plane: Tensor, seed: int, index: int, epoch: int, seen: np.ndarray | None = None
) -> Tile:
    """The tile of image number `index` that trains in `epoch`: in as many epochs as there are tiles, each of them once."""
    tiles = seen_tiles(preprocess, tuple(plane.shape[-2:]), seen)
    turn, place = divmod(epoch, len(tiles))
    generator = torch.Generator().manual_seed(derive_seed("tiles", seed, index, turn))
    return tiles[int(torch.randperm(len(tiles), generator=generator)[place])]


def cut(preprocess: Preprocess, plane: Tensor, tile: Tile) -> Tensor:
    """The model's input (..., C, h, w) of one tile of a plane (..., C, H, W), in memory of its own."""
    part = preprocess.normalized(plane[..., *tile])
    return part.clone(memory_format=torch.contiguous_format)


def each_tile(preprocess: Preprocess, planes: Batch) -> Iterator[Batch]:
    """A batch of one tile for each tile of one image, from the batch (1, C, H, W) of its plane."""
    seen = planes.seen[0] if planes.seen else None
    for tile in seen_tiles(preprocess, tuple(planes.images.shape[-2:]), seen):
        yield replace(
            planes,
            images=cut(preprocess, planes.images, tile),
            masks=planes.masks[..., *tile].clone(),
            seen=None if seen is None else [seen[tile]],
        )


def count_tiles(preprocess: Preprocess, reader: DatasetReader, samples: Sequence[Sample]) -> int:
    """How many tiles the images have together; of those that are not resized the size is looked up in the files.

    Images that cannot be read count as none.
    """
    total = 0
    for sample in samples:
        try:
            size = preprocess.crop or preprocess.size or preprocess.plane_size(*reader.size(sample))
            total += len(preprocess.tiles(size))
        except DataError as error:  # says so, or skips it, when it is read
            del error
    return total
