"""Several processes that train one model: which images each has, and how they add up what each found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from adcore.errors import TrainingError

BUCKET = 2**23  # numbers that are added up at once
T = TypeVar("T")


class LostProcessError(TrainingError):
    """Another process of this training has ended, so that nothing can be added up any more."""


@dataclass(frozen=True)
class Share:
    """The images of a batch that one of several processes has: `count` of `total`, from `start` on."""

    start: int
    count: int
    total: int

    @property
    def weight(self) -> float:
        """The part that this process's mean has in the mean over the whole batch."""
        return self.count / self.total


@dataclass(frozen=True)
class Processes:
    """The processes of one training, as number `rank` of `count` sees them; all of them call each method together.

    The first one, number 0, writes the files and shows the progress. Raises LostProcessError where another one has ended.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.count > 1

    def part(self, total: int) -> slice:
        """This process's part of `total` things in order: the parts follow one another, and differ by at most one thing."""
        return slice(self.rank * total // self.count, (self.rank + 1) * total // self.count)

    def share(self, total: int) -> Share | None:
        """This process's part of a batch of `total` images; None where each process takes the whole batch, a small one."""
        if not self.several or total < self.count:
            return None
        part = self.part(total)
        return Share(part.start, part.stop - part.start, total)

    def part_of_batch(self, total: int) -> slice:
        """The part of a batch of `total` images, as `share` has it."""
        return self.part(total) if self.share(total) else slice(None)

    def weight(self, share: Share | None) -> float:
        """The part of this process's loss in that of the whole batch."""
        return share.weight if share else 1 / self.count

    def add(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.several:
            with _together():
                dist.all_reduce(tensor)
        return tensor

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add the gradients of all processes; a parameter that has none anywhere stays without.

        DistributedDataParallel would do it inside the backward pass, and save some of the wait. But it wraps one `forward` and
        one backward pass a step, and a model here has a `training_step` with as many of them as it wants, of any of its parts.
        """
        if not self.several:
            return
        for bucket in _buckets(parameters):
            present = bucket[0].new_tensor([p.grad is not None for p in bucket])
            gradients = [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in bucket]
            sums = self.add(torch.cat([*gradients, present]))
            *sums, present = sums.split([*(p.numel() for p in bucket), len(bucket)])
            for parameter, total, anywhere in zip(bucket, sums, present.tolist(), strict=True):
                if not anywhere:
                    continue
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                parameter.grad.copy_(total.view_as(parameter))

    def same(self, value: T) -> T:
        """The first process's `value`, plain data."""
        if not self.several:
            return value
        values = [value]
        with _together():
            dist.broadcast_object_list(values, device=torch.device("cpu"))
        return values[0]

    def copied(self, tensor: Tensor) -> Tensor:
        """The first process's `tensor`, which has the same shape in all."""
        copy = tensor.detach().clone()
        if self.several:
            with _together():
                dist.broadcast(copy, 0)
        return copy

    def same_state(self, model: nn.Module) -> None:
        """Give all processes the first one's parameters and buffers."""
        if self.several:
            with torch.no_grad():
                for tensor in (*model.parameters(), *model.buffers()):
                    tensor.copy_(self.copied(tensor))

    def lists(self, values: list[Any]) -> list[Any]:
        """The lists of all processes, in their order, as one."""
        if not self.several:
            return values
        found: list[list[Any]] = [[]] * self.count
        with _together():
            dist.all_gather_object(found, values)
        return [value for some in found for value in some]

    def collect(self, buffer: Tensor, filled: int) -> int:
        """Bring the first `filled` rows of each process's `buffer`, in the processes' order, into that of the first one.

        It must have room for all of them. How many rows are filled afterwards: elsewhere as before.
        """
        counts = self.lists([filled])
        with _together():
            if not self.first:
                dist.send(buffer[:filled].contiguous(), 0)
                return filled
            for number, count in enumerate(counts[1:], 1):
                dist.recv(buffer[filled : filled + count], number)
                filled += count
        return filled


@contextmanager
def _together() -> Iterator[None]:
    """Inside, a connection that breaks is a LostProcessError."""
    try:
        yield
    except RuntimeError as error:  # gloo has no type of its own; NCCL's is one of these
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise LostProcessError(f"another process of this training has ended ({reason})") from error


def _buckets(parameters: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Parameters of one type and device, together at most BUCKET numbers where each alone has no more."""
    kinds: dict[tuple[torch.dtype, torch.device], list[nn.Parameter]] = {}
    for parameter in parameters:
        if parameter.requires_grad:
            kinds.setdefault((parameter.dtype, parameter.device), []).append(parameter)
    for same in kinds.values():
        bucket, size = [], 0
        for parameter in same:
            if bucket and size + parameter.numel() > BUCKET:
                yield bucket
                bucket, size = [], 0
            bucket.append(parameter)
            size += parameter.numel()
        yield bucket
