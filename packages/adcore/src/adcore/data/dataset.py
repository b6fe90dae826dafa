"""Samples to batches: decoding, preprocessing, and an order that depends on the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from adcore_runtime.image import gray_photo
from adcore_runtime.roi import Roi
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from adcore.data.cache import ImageCache
from adcore.data.read_ahead import read_ahead, read_together
from adcore.data.samples import NORMAL, DatasetReader, Sample
from adcore.data.splits import derive_seed
from adcore.data.tiles import count_tiles, cut, drawn_tile, each_tile
from adcore.errors import DataError
from adcore.memory import is_out_of_memory
from adcore.model import Batch
from adcore.preprocess import Preprocess
from adcore.settings import settings

T = TypeVar("T")


@dataclass
class Item:
    """One preprocessed image."""

    image: Tensor  # (C, h, w) float32
    mask: Tensor | None  # (h, w) bool; all False for a normal image, None for an anomalous one without a mask
    sample: Sample
    extra: Mapping[str, Any] = field(default_factory=dict)  # of the reader
    photo: np.ndarray | None = None  # (H, W) uint8, the decoded image in gray, where it was asked for
    size: tuple[int, int] = (0, 0)  # height and width of the decoded image
    roi: Roi | None = None  # its own region of interest, where each image has one
    seen: np.ndarray | None = None  # (h, w) bool, the pixels that count; None: all


@dataclass
class Skipped:
    """A file that cannot be used, and why."""

    path: str
    reason: str


def prepare(
    image: Tensor, mask: Tensor | None, preprocess: Preprocess, name: str | Path
) -> tuple[Tensor, Tensor | None]:
    """Decoded image (C, H, W) and mask (H, W) -> model input (C, h, w) and mask (h, w).

    With tiles: the plane that they are cut from, not normalised. `Preprocess` is applied here alone: for training,
    evaluation, `predict` and `Predictor.predict`. `name` is the image's; DataError for an image that does not fit, or for
    which memory does not suffice.
    """
    try:
        inputs = preprocess.plane(image) if preprocess.tile else preprocess(image)
        if preprocess.tile:
            preprocess.tiles(inputs.shape[-2:])
        return inputs, None if mask is None else preprocess.mask(mask)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        height, width = preprocess.plane_size(*image.shape[-2:])
        raise DataError(
            f"{name}: not enough memory to resize it to {width}x{height} px; use a smaller image_size"
        ) from None


def read_item(reader: DatasetReader, sample: Sample, preprocess: Preprocess, photo: bool = False) -> Item:
    """Decode and preprocess one sample; DataError for a bad file or a mask that is not of its image's size."""
    image, mask, extra = reader.image(sample), reader.mask(sample), reader.extra(sample)
    if mask is not None and mask.shape != image.shape[1:]:
        (h, w), (height, width) = mask.shape, image.shape[1:]
        turned = "; one of them may carry an EXIF rotation" if (h, w) == (width, height) else ""
        raise DataError(
            f"{sample.mask_path}: mask of {w}x{h} px for an image of {width}x{height} px{turned}; make it the same size"
        )
    height, width = image.shape[-2:]
    roi = reader.rois.of(sample.image_path, reader.root, height, width) if reader.rois else None
    view = preprocess.of(roi)
    inputs, small = prepare(image, mask, view, sample.image_path)
    if small is None and sample.label == NORMAL:
        small = torch.zeros(inputs.shape[-2:], dtype=torch.bool)
    seen = view.seen(height, width)
    if seen is not None and small is not None:
        small &= torch.tensor(seen)
    gray = gray_photo(image.numpy()) if photo else None
    return Item(inputs, small, sample, extra, gray, (height, width), roi, seen)


class ImageDataset(Dataset):
    """Samples as preprocessed `Item`s.

    A bad file raises DataError; with `skip_bad` the item is a `Skipped` instead, which a loader leaves out of its batch
    and notes in `skipped`.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        reader: DatasetReader,
        preprocess: Preprocess,
        skip_bad: bool = False,
        photos: bool = False,
        seed: int = 0,
    ) -> None:
        self.samples, self.reader, self.preprocess, self.skip_bad = list(samples), reader, preprocess, skip_bad
        reader.channels = preprocess.channels
        self.photos = photos  # whether items keep the decoded image in gray
        self.seed = seed  # that tiles are drawn by
        self.cache: ImageCache | None = None  # of preprocessed images
        self._skipped: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Item | Skipped:
        item = self.fetch(index)
        if isinstance(item, Skipped) and not self.skip_bad:
            raise DataError(item.reason)
        return item

    def fetch(self, index: int, epoch: int | None = None) -> Item | Skipped:
        """The item, or why there is none; never a DataError, which would lose its one clear line in a worker process.

        With tiles and an `epoch` the item is the tile of that epoch, else the plane that tiles are cut from.
        """
        sample = self.samples[index]
        try:
            return self._cached(index) or self._read(index, epoch)
        except DataError as error:
            return Skipped(str(sample.image_path), str(error))
        except SystemExit as error:  # in a thread it would end nothing, in a worker process it would end it silently
            return Skipped(
                str(sample.image_path),
                f"{sample.image_path}: reader {type(self.reader).__name__} tried to end the program (SystemExit: {error})",
            )
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return Skipped(
                str(sample.image_path),
                f"{sample.image_path}: not enough memory to read it; end other programs, or cut it into tiles",
            )

    def _cached(self, index: int) -> Item | None:
        found = self.cache.get(index) if self.cache else None
        sample = self.samples[index]
        return Item(*found, sample, self.reader.extra(sample), seen=self.preprocess.common_seen) if found else None

    def _read(self, index: int, epoch: int | None) -> Item:
        item = read_item(self.reader, self.samples[index], self.preprocess, self.photos)
        if self.preprocess.tile and epoch is not None:
            tile = drawn_tile(self.preprocess, item.image, self.seed, index, epoch, item.seen)
            mask, seen = (None if one is None else one[tile] for one in (item.mask, item.seen))
            mask = None if mask is None else mask.clone()
            item = replace(item, image=cut(self.preprocess, item.image, tile), mask=mask, seen=seen)
        if self.cache:
            self.cache.put(index, item.image, item.mask)
        return item

    @property
    def skipped(self) -> list[dict[str, str]]:
        """Files left out so far, each once: path and reason, sorted by path."""
        return [{"path": path, "reason": reason} for path, reason in sorted(self._skipped.items())]

    def note_skipped(self, skipped: Skipped) -> None:
        """Remember a bad file; called in the main process, whichever process found it."""
        self._skipped[skipped.path] = skipped.reason


def collate(items: Sequence[Item]) -> Batch:
    """Stack items to one Batch; an `extra` that an item lacks is None."""
    blank = torch.zeros(items[0].image.shape[1:], dtype=torch.bool)
    return Batch(
        images=torch.stack([item.image for item in items]),
        labels=torch.tensor([item.sample.label for item in items]),
        masks=torch.stack([blank if item.mask is None else item.mask for item in items]),
        has_mask=torch.tensor([item.mask is not None for item in items]),
        paths=[str(item.sample.image_path) for item in items],
        categories=[item.sample.category for item in items],
        extra={
            key: [item.extra.get(key) for item in items] for key in sorted({k for item in items for k in item.extra})
        },
        seen=None if items[0].seen is None else [item.seen for item in items],
    )


class EpochBatchSampler(Sampler[list[tuple[int, int]]]):
    """Batches of pairs (index, epoch), whose order depends on (seed, epoch) alone; it can start in the middle of an epoch."""

    def __init__(self, size: int, batch_size: int, shuffle: bool, seed: int, drop_last: bool = False) -> None:
        self.size, self.batch_size, self.shuffle, self.seed, self.drop_last = size, batch_size, shuffle, seed, drop_last
        self.epoch, self.start = 0, 0
        # of several processes: this one's part of a batch, given its size, or its block of all images in order
        self.part: Callable[[int], slice] | None = None
        self.block: slice | None = None

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Give epoch `epoch` from batch number `start` on."""
        self.epoch, self.start = epoch, start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = torch.arange(self.size)
        if self.shuffle:
            generator = torch.Generator().manual_seed(derive_seed("order", self.seed, self.epoch))
            order = torch.randperm(self.size, generator=generator)
        batches = order[self.block or slice(None)].split(self.batch_size)[: self._batches]
        batches = [[(index, self.epoch) for index in batch.tolist()] for batch in batches[self.start :]]
        return iter([batch[self.part(len(batch))] if self.part else batch for batch in batches])

    def __len__(self) -> int:
        return max(self._batches - self.start, 0)

    @property
    def _batches(self) -> int:
        size = len(range(self.size)[self.block]) if self.block else self.size
        return size // self.batch_size if self.drop_last else -(-size // self.batch_size)


class Loader:
    """Batches of an ImageDataset, the same for every number of workers; torch's global random state is not changed."""

    def __init__(self, dataset: ImageDataset, sampler: EpochBatchSampler, num_workers: int) -> None:
        self.dataset, self.sampler, self.num_workers, self.singly = dataset, sampler, num_workers, False
        self.tiles = 0  # in one epoch, where all of them are given one by one
        self._loader = self._new_loader()

    def _new_loader(self) -> DataLoader:
        return DataLoader(
            _Fetch(self.dataset),
            batch_sampler=self.sampler,
            num_workers=self.num_workers,
            collate_fn=_collate_good,
            pin_memory=settings().pin_memory and torch.cuda.is_available(),
            persistent_workers=settings().persistent_workers and self.num_workers > 0,
            generator=torch.Generator().manual_seed(derive_seed("workers", self.sampler.seed)),
        )

    @property
    def tiled(self) -> bool:
        """Whether the model sees tiles."""
        return self.dataset.preprocess.tile is not None

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Give epoch `epoch` from batch number `start` on, in the next iteration."""
        self.sampler.set_epoch(epoch, start)

    def one_by_one(self) -> None:
        """Give batches of one image, in the same order, from the next iteration on, for a model that learns in one pass.

        With tiles: of one tile, all tiles of each image, read in this process.
        """
        self.sampler.batch_size, self.singly = 1, True
        if self.tiled:
            self.num_workers = 0
            self.tiles = count_tiles(self.dataset.preprocess, self.dataset.reader, self.dataset.samples)

    def divide(self, part: Callable[[int], slice]) -> None:
        """Give a part of each batch, the one of `part(size)`, from the next iteration on."""
        self.sampler.part = part

    def keep_block(self, block: slice) -> None:
        """Give batches of a block of the images, as they are ordered, from the next iteration on."""
        self.sampler.block = block

    def __len__(self) -> int:
        """Batches of one epoch, those before the start included."""
        return self.tiles or self.sampler._batches

    def __iter__(self) -> Iterator[Batch]:
        """Batches; the next is read while the model works on one, or single images in turns with it."""
        if self.num_workers > 0:
            return self._good(_given(iter(self._loader)))
        if self.tiles:
            planes = (_collate_good([self.dataset.fetch(index)]) for [(index, _)] in self.sampler)
            return (tile for plane in self._good(planes) for tile in each_tile(self.dataset.preprocess, plane))
        if self.singly:
            return self._good(read_together(lambda batch: _collate_good([self.dataset.fetch(*batch[0])]), self.sampler))
        return self._good(read_ahead(self._loader))

    def _good(self, read: Generator[tuple[Batch | None, list[Skipped]], None, None]) -> Iterator[Batch]:
        good = False
        with closing(read):
            for batch, skipped in read:
                for entry in skipped:
                    if not self.dataset.skip_bad:
                        # ends the worker processes here; from a traceback the garbage collector needs 5 s for each
                        self._loader = self._new_loader()
                        raise DataError(entry.reason)
                    self.dataset.note_skipped(entry)
                if batch is not None:
                    good = True
                    yield batch
        if not good and self.dataset.skipped and self.sampler.start == 0:
            first = self.dataset.skipped[0]["reason"]
            raise DataError(f"all {len(self.dataset)} images had to be skipped; the first: {first}")


def _given(items: Iterator[T]) -> Generator[T, None, None]:
    """The same items, as a generator that releases them when it is closed."""
    yield from items


class _Fetch(Dataset):
    def __init__(self, dataset: ImageDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, key: tuple[int, int]) -> Item | Skipped:
        return self.dataset.fetch(*key)


def _collate_good(items: Sequence[Item | Skipped]) -> tuple[Batch | None, list[Skipped]]:
    good = [item for item in items if isinstance(item, Item)]
    return collate(good) if good else None, [item for item in items if isinstance(item, Skipped)]


def make_loader(
    dataset: ImageDataset, batch_size: int, shuffle: bool, seed: int, num_workers: int = 0, drop_last: bool = False
) -> Loader:
    """Batches of `dataset`; call `set_epoch` before each pass to get another order, equal for equal (seed, epoch)."""
    return Loader(dataset, EpochBatchSampler(len(dataset), batch_size, shuffle, seed, drop_last), num_workers)
