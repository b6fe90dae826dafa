"""A coreset by greedy farthest-first selection: exact, but many picks for one pass over the data."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from adcore.errors import ConfigError, TrainingError
from torch import Tensor

RESERVE = 8  # blocks of points that are brought up to date at a time
PICKED = -torch.inf  # in place of the distance of a point that is in the coreset already
MOST_CANDIDATES = 2048  # of a block: their distances to one another are 16 MB
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
    block: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Greedy k-center selection: each pick is the point farthest from all picks before it; picks come in their order.

    `features` (N, D) floating point -> (count,) int64 indices, the first of which is `start`; no point comes twice, also
    among duplicates. `progress(done, count)` is called after each block of picks, for which the `block` farthest points
    compete (None: 7 sqrt(N), where what a block costs balances, but at most 2,048). Beyond `features` this needs memory for
    `block` x (1024 + `block`) numbers and a few for each point. Raises ConfigError where `count` or `start` do not suit N,
    and TrainingError on NaN or infinity. Source: Gonzalez 1985; Roth et al. 2022, algorithm 1.
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
    block = min(n, block or min(MOST_CANDIDATES, round(7 * n**0.5)))
    nearest = torch.full_like(half, torch.inf)  # half the squared distance to the nearest of the first `seen` picks
    seen = torch.zeros(n, dtype=torch.int32, device=features.device)  # later picks can only lower `nearest`
    picks = torch.empty(count, dtype=torch.int64, device=features.device)
    new, done = torch.tensor([start], device=features.device), 0
    while True:
        picks[done : done + len(new)] = new
        nearest[new] = PICKED
        done += len(new)
        if progress:
            progress(done, count)
        if done == count:
            return picks
        while len(stale := _stale(nearest, seen, done, block)):
            for since in seen[stale].unique().tolist():
                points = stale[seen[stale] == since]
                for missed in picks[since:done].split(block):
                    _fold(features, center, half, points, missed, nearest, rows)
            seen[stale] = done
        new = _next_picks(features, center, half, nearest, block, count - done)


def _stale(nearest: Tensor, seen: Tensor, done: int, block: int) -> Tensor:
    """Points to look at again, with some in reserve, until the `block` farthest and the next have seen all picks: (M,).

    Most points fall too near once and for all, and are never looked at again.
    """
    farthest, points = nearest.topk(min(block + 1, len(nearest)))
    if not ((seen[points] < done) & (farthest > PICKED)).any():
        return points[:0]
    sample = nearest[::RESERVE]  # its `block`-th is about the RESERVE x `block`-th of all
    reach = torch.minimum(sample.topk(min(block, len(sample)), sorted=False).values.amin(), farthest[-1])
    return ((nearest >= reach) & (nearest > PICKED) & (seen < done)).nonzero()[:, 0]


def _fold(
    features: Tensor, center: Tensor, half: Tensor, points: Tensor, new: Tensor, nearest: Tensor, rows: int
) -> None:
    """Lower `nearest` (N,) at the `points` (M,) by the distances to the `new` picks (P,), with one matrix product."""
    picked, offset = (features[new] - center).t(), half[new]  # (D, P), (P,)
    centered = features.new_empty(min(rows, len(points)), len(center))  # made once: fresh memory costs more
    products = features.new_empty(len(centered) * len(new))
    for some in points.split(rows):
        part = torch.index_select(features, 0, some, out=centered[: len(some)]).sub_(center)
        similarity = products[: len(part) * len(new)].view(len(part), len(new))
        torch.addmm(offset, part, picked, beta=-1, out=similarity)  # x.p - |p|^2/2
        distance = (half[some] - similarity.amax(1)).clamp_(min=0)
        nearest[some] = torch.minimum(nearest[some], distance)


def _next_picks(features: Tensor, center: Tensor, half: Tensor, nearest: Tensor, block: int, limit: int) -> Tensor:
    """The next picks, at least one and at most `limit`, from the `block` points that are farthest now.

    Distances to the nearest pick only fall. So as long as the farthest of these points is no nearer than the best of all
    others is now (the bar), it is the farthest of all points, and the others need not be looked at.
    """
    farthest, candidates = nearest.topk(min(block + 1, len(nearest)))
    bar = farthest[block].item() if len(farthest) > block else PICKED
    candidates = candidates[:block]
    points, norms = features[candidates] - center, half[candidates]
    between = torch.addmm(norms, points, points.t(), alpha=-1).cpu().numpy()  # |x|^2/2 - x.p, still without |p|^2/2
    # From here in numpy, whose calls cost a tenth of torch's on such short arrays.
    distance, norms = farthest[:block].cpu().numpy().copy(), norms.cpu().numpy()
    chosen: list[int] = []
    best = 0  # topk sorts: the first is the farthest of all
    while len(chosen) < limit and distance[best] >= bar and distance[best] > PICKED:
        chosen.append(best)
        np.minimum(distance, np.maximum(between[best] + norms[best], 0), out=distance)
        distance[best] = PICKED
        best = int(distance.argmax())
    return candidates[torch.tensor(chosen, device=candidates.device)]
