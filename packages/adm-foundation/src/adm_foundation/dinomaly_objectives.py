"""What Dinomaly minimises, and how the distances of its groups become one map; the plain method and three variants.

An objective has `aggregate(distances)`, (B, S, N) -> (B, N), and `loss(encoded, decoded, easy_share)`, a scalar.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from adcore.training.device import at_least_single
from torch import Tensor, nn

Groups = Sequence[Tensor]  # S groups of tokens, each (B, N, C)


def cosine_distances(encoded: Groups, decoded: Groups) -> Tensor:
    """Groups of tokens (B, N, C) -> (B, S, N): 1 - cosine similarity of each group s at each location, in [0, 2]."""
    pairs = ((at_least_single(e), at_least_single(d)) for e, d in zip(encoded, decoded, strict=True))
    return torch.stack([1 - F.cosine_similarity(e, d, dim=-1) for e, d in pairs], dim=1).clamp(min=0)


def mining_weights(distances: Tensor, easy_share: float, factor: float) -> Tensor:
    """1 for the hardest (1 - easy_share) of all `distances`, `factor` for the easy rest; any shape."""
    hard = max(1, int(distances.numel() * (1 - easy_share)))
    threshold = distances.flatten().kthvalue(distances.numel() - hard + 1).values
    return torch.where(distances < threshold, factor, 1.0)


def scale_gradient(tensor: Tensor, weights: Tensor) -> None:
    """Multiply the gradient that will arrive at `tensor` by `weights`; its value stays."""
    if tensor.requires_grad:
        tensor.register_hook(lambda gradient: gradient * weights.to(gradient))


class Plain(nn.Module):
    """Dinomaly as published: global cosine distance, loosened by hard mining; the map is the groups' mean."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def aggregate(self, distances: Tensor) -> Tensor:
        """(B, S, N) -> (B, N)."""
        return distances.mean(1)

    def loss(self, encoded: Groups, decoded: Groups, easy_share: float) -> Tensor:
        """Mean over images and groups; `easy_share` of the locations get their gradients multiplied by `factor`."""
        with torch.no_grad():
            distances = cosine_distances(encoded, decoded)
        losses = []
        for s, (e, d) in enumerate(zip(encoded, decoded, strict=True)):
            scale_gradient(d, mining_weights(distances[:, s], easy_share, self.factor).unsqueeze(-1))
            losses.append((1 - F.cosine_similarity(e.flatten(1), d.flatten(1))).mean())
        return torch.stack(losses).mean()


class Gem(nn.Module):
    """Generalised mean over groups: a location that one group alone finds odd keeps more of its distance."""

    def __init__(self, p: float, factor: float) -> None:
        super().__init__()
        self.p, self.factor = p, factor

    def aggregate(self, distances: Tensor) -> Tensor:
        """(B, S, N) -> (B, N): (mean_s d_s^p)^(1/p), as a p-norm, whose gradient is finite where all distances are 0."""
        return torch.linalg.vector_norm(distances, ord=self.p, dim=1) / distances.shape[1] ** (1 / self.p)

    def loss(self, encoded: Groups, decoded: Groups, easy_share: float) -> Tensor:
        """Mean of the aggregated map, with hard mining on that map."""
        aggregated = self.aggregate(cosine_distances(encoded, decoded))
        scale_gradient(aggregated, mining_weights(aggregated.detach(), easy_share, self.factor))
        return aggregated.mean()


class Focal(nn.Module):
    """Each location counts by how far it is from reconstructed, in place of hard mining's two classes."""

    def __init__(self, gamma: float) -> None:
        super().__init__()
        self.gamma = gamma

    def aggregate(self, distances: Tensor) -> Tensor:
        """(B, S, N) -> (B, N)."""
        return distances.mean(1)

    def loss(self, encoded: Groups, decoded: Groups, easy_share: float) -> Tensor:
        """Mean over groups and locations of (d / max d)^gamma d, the maximum over the batch of each group."""
        distances = cosine_distances(encoded, decoded)
        with torch.no_grad():
            largest = distances.amax(dim=(0, 2), keepdim=True).clamp(min=torch.finfo(distances.dtype).tiny)
            weights = (distances / largest) ** self.gamma
        return (weights * distances).mean()


class Scale(Plain):
    """Learns how much each group counts in the map."""

    def __init__(self, groups: int, weight: float, factor: float) -> None:
        super().__init__(factor)
        self.weight = weight
        self.logits = nn.Parameter(torch.zeros(groups))

    def aggregate(self, distances: Tensor) -> Tensor:
        """(B, S, N) -> (B, N): sum_s softmax(logits)_s d_s, written as a mean so that equal logits are exactly it."""
        weights = len(self.logits) * self.logits.softmax(0)
        return (weights[:, None] * distances).mean(1)

    def loss(self, encoded: Groups, decoded: Groups, easy_share: float) -> Tensor:
        """The plain loss + weight * mean(map); the map's distances are constants here, so it teaches the logits alone."""
        distances = cosine_distances(encoded, decoded).detach()
        return super().loss(encoded, decoded, easy_share) + self.weight * self.aggregate(distances).mean()
