"""A coreset of more patches than fit into memory: each block is reduced as it comes, what is left once more at the end."""

from __future__ import annotations

from collections.abc import Callable

import torch
from adcore.errors import ConfigError
from adcore.memory import available_memory
from torch import Tensor

from adm_memory.coreset import farthest_first

BLOCK = 1 << 14  # patches that are reduced together; the time for a block grows with its square
KEPT = 2  # times the final share that a block keeps: a larger share takes longer and did not cover better when measured
SELECTION = 32  # bytes that the selection needs for a patch beside its features


class StreamedPatches:
    """Takes the `total` patches (N, D) of a training as they come, in a buffer of at most `limit` bytes.

    Each full block is reduced by farthest-first selection to the same share of it; the coreset of `count` patches is picked
    from what is left of all blocks. `reduce` maps patches to the features whose distances count, `sample` (n, D) is a few
    patches. Raises ConfigError where `limit` is too small for the coreset.
    """

    def __init__(self, total: int, count: int, limit: int, sample: Tensor, reduce: Callable[[Tensor], Tensor]) -> None:
        entry, row = bytes_of_row(sample, reduce(sample[:1]))
        rows = (limit - count * entry) // row  # the coreset is copied out of the buffer
        self.block = max(1, min(BLOCK, max(rows // 8, rows - KEPT * count)))
        self.share = min(KEPT * count / total, 1.0)
        if rows - self.block < KEPT * count:
            needed = size_text(count * entry + 1.2 * KEPT * count * row)
            raise ConfigError(
                f"a bank of {count} patches needs max_memory={needed} and not {size_text(limit)}; "
                "set that, or a smaller coreset_ratio"
            )
        self.reduce, self.seen = reduce, 0
        self.radius = 0.0  # of the blocks: how far a patch is from what is left
        self._kept = self._new = 0  # rows that are left of earlier blocks, and behind them those of this one
        blocks = total // self.block
        self._rows = sample.new_empty(min(total, blocks * self._of(self.block) + self.block), sample.shape[1])

    def add(self, patches: Tensor) -> None:
        """Take patches (n, D); a block that they make full is reduced."""
        self.seen += len(patches)
        while len(patches):
            some, end = patches[: self.block - self._new], self._kept + self._new
            self._rows[end : end + len(some)] = some
            self._new, patches = self._new + len(some), patches[len(some) :]
            if self._new == self.block:
                self._reduce_block()

    def left(self) -> Tensor:
        """The patches that are left (n, D); the last block, which is not full, as it is."""
        return self._rows[: self._kept + self._new]

    def _of(self, patches: int) -> int:
        return max(1, int(patches * self.share))

    def _reduce_block(self) -> None:
        block = self._rows[self._kept : self._kept + self._new]
        picks, radius = covering(self.reduce(block), self._of(self._new))
        self._rows[self._kept : self._kept + len(picks)] = block[picks.sort().values]
        self._kept, self._new, self.radius = self._kept + len(picks), 0, max(self.radius, radius)


def covering(
    features: Tensor, count: int, start: int = 0, progress: Callable[[int, int], None] | None = None
) -> tuple[Tensor, float]:
    """Farthest-first picks (count,) of (N, D) `features`, and their covering radius: how far a point is from them at most.

    It is the distance of the pick that would come next.
    """
    picks = farthest_first(features, min(count + 1, len(features)), start, progress=progress)
    if len(picks) <= count:
        return picks, 0.0
    picks, following = picks[:-1], features[picks[-1]]
    nearest = (torch.linalg.vector_norm(features[some] - following, dim=1).min() for some in picks.split(BLOCK))
    return picks, float(min(nearest))


def bytes_of_row(patches: Tensor, reduced: Tensor) -> tuple[int, int]:
    """Bytes of one of the patches (n, D), and what a selection among them needs for each; `reduced` as it compares them."""
    size = patches.element_size()
    width = reduced.shape[1] if reduced.shape[1] != patches.shape[1] else 0  # a copy only where they are projected
    return size * patches.shape[1], size * (patches.shape[1] + width) + SELECTION


def memory_limit(text: str, device: torch.device) -> int:
    """Bytes of `500MB`, `4GB`, or of half of what is free on the device (`auto`)."""
    if text == "auto":
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()
        return free // 2
    return int(float(text[:-2]) * {"MB": 10**6, "GB": 10**9}[text[-2:]])


def size_text(size: float) -> str:
    """Bytes as `max_memory` takes them, rounded up."""
    return f"{-(-int(size) // 10**6)}MB"
