"""A coreset by greedy farthest-first selection: exact, but many picks for one pass over the data."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from adcore.errors import ConfigError, TrainingError
from torch import Tensor

PICKED = -torch.inf  # in place of the distance of a point that is in the coreset already
CPU_ROWS, GPU_ROWS = 1024, 65536  # points folded at a time; on a CPU their products stay in the cache


def random_projection(features: Tensor, dims: int, generator: torch.Generator | None = None) -> Tensor:
    """Gaussian Johnson-Lindenstrauss projection, which keeps distances but for a few percent: (N, D) -> (N, dims).

    `generator` is a CPU generator, so that every device draws the same matrix. Source: Roth et al. 2022, section 3.2.
    """
    matrix = torch.randn(features.shape[1], dims, generator=generator, dtype=features.dtype) / dims**0.5
    return features @ matrix.to(features.device)


@torch.no_grad()
def farthest_first(
    features: Tensor,
    count: int,
    start: int = 0,
    block: int = 1024,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Greedy k-center selection: each pick is the point farthest from all picks before it; picks come in their order.

    `features` (N, D) floating point -> (count,) int64 indices, the first of which is `start`; no point comes twice, also
    among duplicates. `progress(done, count)` is called after each block. Beyond `features` this needs memory for
    `block` x (1024 + `block`) numbers and a few for each point. Raises ConfigError where `count` or `start` do not suit N, and
    TrainingError on NaN or infinity. Source: Gonzalez 1985; Roth et al. 2022, algorithm 1.
    """
    n = len(features)
    if not 1 <= count <= n or not 0 <= start < n:
        raise ConfigError(f"cannot pick {count} of {n} points from number {start} on; ask for 1 to {n} of them")
    # A distance as |x|^2/2 + |p|^2/2 - x.p loses what the norms exceed the distance by, so the origin goes to the middle.
    center = features.mean(0)
    rows = CPU_ROWS if features.device.type == "cpu" else GPU_ROWS
    half = torch.cat([(part - center).square_().sum(1) for part in features.split(rows)]).div_(2)  # |x|^2/2: (N,)
    if not half.isfinite().all():
        raise TrainingError(
            "the features hold NaN or infinite values; check the training images and the backbone weights"
        )
    nearest = torch.full_like(half, torch.inf)  # half the squared distance to the nearest pick: (N,)
    picks = torch.empty(count, dtype=torch.int64, device=features.device)
    new, done = torch.tensor([start], device=features.device), 0
    while True:
        picks[done : done + len(new)] = new
        done += len(new)
        if progress:
            progress(done, count)
        if done == count:
            return picks
        _fold(features, center, half, new, nearest, rows)
        new = _next_picks(features, center, half, nearest, min(block, n), count - done)


def _fold(features: Tensor, center: Tensor, half: Tensor, new: Tensor, nearest: Tensor, rows: int) -> None:
    """Lower `nearest` (N,) by the distances to the `new` picks, with one matrix product for all of them."""
    picked, offset = (features[new] - center).t(), half[new]  # (D, P), (P,)
    products = features.new_empty(rows * len(new))  # made once: fresh memory costs more than the product
    for i in range(0, len(features), rows):
        part = features[i : i + rows] - center
        similarity = products[: len(part) * len(new)].view(len(part), len(new))
        torch.addmm(offset, part, picked, beta=-1, out=similarity)  # x.p - |p|^2/2
        distance = (half[i : i + rows] - similarity.amax(1)).clamp_(min=0)
        torch.minimum(nearest[i : i + rows], distance, out=nearest[i : i + rows])
    nearest[new] = PICKED


def _next_picks(features: Tensor, center: Tensor, half: Tensor, nearest: Tensor, block: int, limit: int) -> Tensor:
    """The next picks, at least one and at most `limit`, from the `block` points that are farthest now.

    Distances to the nearest pick only fall. So as long as the farthest of these points is no nearer than the best of all
    others is now (the bar), it is the farthest of all points, and the others need not be looked at.
    """
    farthest, candidates = nearest.topk(min(block + 1, len(nearest)))
    bar = farthest[block].item() if len(farthest) > block else PICKED
    candidates = candidates[:block]
    points, norms = features[candidates] - center, half[candidates]
    between = torch.addmm(norms, points, points.t(), alpha=-1).add_(norms[:, None]).clamp_(min=0).cpu().numpy()
    distance = farthest[:block].cpu().numpy().copy()  # numpy: its calls cost a tenth of torch's on such short arrays
    chosen: list[int] = []
    best = 0  # topk sorts: the first is the farthest of all
    while len(chosen) < limit and distance[best] >= bar and distance[best] > PICKED:
        chosen.append(best)
        np.minimum(distance, between[best], out=distance)
        distance[best] = PICKED
        best = int(distance.argmax())
    return candidates[torch.tensor(chosen, device=candidates.device)]
