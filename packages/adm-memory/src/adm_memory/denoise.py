"""Patches that do not belong into a bank of normal ones, found by local outlier factors (Breunig et al., SIGMOD 2000)."""

from __future__ import annotations

import torch
from torch import Tensor

NEIGHBORS = 6  # k of SoftPatch's paper
BLOCK = 1 << 25  # distances that are computed at once


def local_outlier_factors(patches: Tensor, neighbors: int = NEIGHBORS) -> Tensor:
    """How much sparser each image's patch lies among the other images' patches of its position: (N, L, d) -> (N, L).

    About 1 for what is among its like, larger for an outlier. A single image has only ones.
    """
    count, positions, _ = patches.shape
    neighbors = min(neighbors, count - 1)
    if neighbors < 1:
        return patches.new_ones(count, positions)
    factors = [_factors(part, neighbors) for part in patches.split(max(1, BLOCK // count**2), dim=1)]
    return torch.cat(factors, 1)


def _factors(patches: Tensor, neighbors: int) -> Tensor:
    points = patches.transpose(0, 1).contiguous()  # (l, N, d)
    distances = torch.cdist(points, points)  # (l, N, N)
    distances.diagonal(dim1=1, dim2=2).fill_(torch.inf)  # nobody is a neighbour of itself
    nearest = distances.topk(neighbors, dim=2, largest=False)  # (l, N, k), nearest first
    reach = nearest.values[..., -1]  # k-distance: (l, N)
    shape = nearest.indices.shape
    theirs = reach.gather(1, nearest.indices.flatten(1)).view(shape)  # of the neighbours
    density = 1 / (torch.maximum(theirs, nearest.values).mean(2) + 1e-10)  # local reachability density: (l, N)
    others = density.gather(1, nearest.indices.flatten(1)).view(shape)
    return (others.mean(2) / density).T  # (N, l)


def least_suspicious(factors: Tensor, ratio: float) -> Tensor:
    """Indices, ascending, of all but the `ratio` of (N,) `factors` that are largest; at least one is left."""
    keep = max(1, len(factors) - int(ratio * len(factors)))
    return factors.argsort(stable=True)[:keep].sort().values


def compacted(patches: Tensor, kept: Tensor, block: int = 1 << 14) -> Tensor:
    """The rows `kept` (ascending) of (N, d) `patches`, moved to its front without a second copy of it."""
    for start in range(0, len(kept), block):
        rows = kept[start : start + block]
        patches[start : start + len(rows)] = patches[rows]
    return patches[: len(kept)]
