"""Preprocessed images, kept after the first pass of a training so that each file is decoded once."""

from __future__ import annotations

import logging
import mmap
import os
import shutil
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from adcore.errors import ConfigError
from adcore.memory import SHARE_OF_MEMORY, available_memory

log = logging.getLogger(__name__)
Kind = Literal["auto", "memory", "disk", "off"]
FREE_ON_DISK = 2  # times the size must be free on the disk for `auto` to use it
EMPTY, WITHOUT_MASK, WITH_MASK = 0, 1, 2


class ImageCache:
    """Room for `count` images (C, h, w) float32 and their masks, shared with worker processes that are forked later.

    It is memory, or with `folder` a file there that has no name, so that nothing is left of it whatever ends the process. A
    process that is not forked (Windows) works without: it finds nothing and keeps nothing.
    """

    def __init__(self, count: int, channels: int, size: tuple[int, int], folder: Path | None = None) -> None:
        pixels, flat = size[0] * size[1], np.frombuffer(_room(nbytes(count, channels, size), folder), np.uint8)
        ends = np.cumsum([4 * count * channels * pixels, count * pixels, count])
        images, masks, state = np.split(flat, ends[:2])
        images = images.view(np.float32).reshape(count, channels, *size)
        self._kept: tuple[np.ndarray, ...] | None = images, masks.view(np.bool_).reshape(count, *size), state

    def get(self, index: int) -> tuple[Tensor, Tensor | None] | None:
        """Image and mask that were kept, bit for bit, as copies; None where there is none yet."""
        kept = self._kept  # another thread may close it meanwhile
        if kept is None or kept[2][index] == EMPTY:
            return None
        images, masks, state = kept
        mask = torch.from_numpy(masks[index].copy()) if state[index] == WITH_MASK else None
        return torch.from_numpy(images[index].copy()), mask

    def put(self, index: int, image: Tensor, mask: Tensor | None) -> None:
        """Keep an image and its mask."""
        kept = self._kept
        if kept is None:
            return
        images, masks, state = kept
        images[index] = image.numpy()
        if mask is not None:
            masks[index] = mask.numpy()
        state[index] = WITHOUT_MASK if mask is None else WITH_MASK  # last: another process may be reading

    def close(self) -> None:
        """Give the room back, as soon as no thread reads or keeps an image any more."""
        self._kept = None

    def __getstate__(self) -> dict[str, None]:
        return {"_kept": None}


def nbytes(count: int, channels: int, size: tuple[int, int]) -> int:
    """The room that images and masks take."""
    return count * (size[0] * size[1] * (4 * channels + 1) + 1)


def make_cache(
    kind: Kind, count: int, channels: int, size: tuple[int, int], folder: Path | None, processes: int = 1
) -> ImageCache | None:
    """A cache for `count` images, or None where none is wanted or, with `auto`, where there is no room for one in each process.

    `folder`, of the run, is where a cache on disk lies. Raises ConfigError where the room that was asked for is not to be had.
    """
    needed = nbytes(count, channels, size)
    if kind == "auto":
        kind = "off"
        if processes * needed <= SHARE_OF_MEMORY * available_memory():
            kind = "memory"
        elif folder is not None and shutil.disk_usage(folder).free >= FREE_ON_DISK * processes * needed:
            kind = "disk"
    if kind == "off" or not count:
        return None
    try:
        cache = ImageCache(count, channels, size, folder if kind == "disk" else None)
    except (OSError, MemoryError, ValueError, OverflowError) as error:
        raise ConfigError(
            f"cache={kind}: {needed / 1e6:.0f} MB for {count} images are not to be had: {error}"
        ) from None
    log.info("%d preprocessed images are kept after the first pass: %.0f MB, %s", count, needed / 1e6, kind)
    return cache


def _room(size: int, folder: Path | None) -> mmap.mmap:
    if folder is None:
        return mmap.mmap(-1, size)
    with tempfile.TemporaryFile(dir=folder) as file:  # without a name on POSIX; mapped, it lives on
        if hasattr(os, "posix_fallocate"):  # its blocks, too: a disk that is full would end the process as it writes
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
        return mmap.mmap(file.fileno(), size)
