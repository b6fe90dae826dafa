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
        self._room: mmap.mmap | None = _room(nbytes(count, channels, size), folder)
        pixels, flat = size[0] * size[1], np.frombuffer(self._room, np.uint8)
        ends = np.cumsum([4 * count * channels * pixels, count * pixels, count])
        images, masks, self._state = np.split(flat, ends[:2])
        self._images = images.view(np.float32).reshape(count, channels, *size)
        self._masks = masks.view(np.bool_).reshape(count, *size)

    def get(self, index: int) -> tuple[Tensor, Tensor | None] | None:
        """Image and mask that were kept, bit for bit, as copies; None where there is none yet."""
        if self._room is None or self._state[index] == EMPTY:
            return None
        mask = torch.from_numpy(self._masks[index].copy()) if self._state[index] == WITH_MASK else None
        return torch.from_numpy(self._images[index].copy()), mask

    def put(self, index: int, image: Tensor, mask: Tensor | None) -> None:
        """Keep an image and its mask."""
        if self._room is None:
            return
        self._images[index] = image.numpy()
        if mask is not None:
            self._masks[index] = mask.numpy()
        self._state[index] = WITHOUT_MASK if mask is None else WITH_MASK  # last: another process may be reading

    def close(self) -> None:
        """Give the room back."""
        if self._room is not None:
            room, self._room = self._room, None
            del self._images, self._masks, self._state
            room.close()

    def __getstate__(self) -> dict[str, None]:
        return {"_room": None}


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
