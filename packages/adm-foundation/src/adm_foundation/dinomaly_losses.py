"""What Dinomaly minimises: cosine distances between encoder and decoder tokens, loosened by hard mining."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def cosine_distances(encoded: Sequence[Tensor], decoded: Sequence[Tensor]) -> Tensor:
    """Groups of tokens (B, N, C) -> (B, S, N): 1 - cosine similarity of each group s at each location."""
    return torch.stack([1 - F.cosine_similarity(e, d, dim=-1) for e, d in zip(encoded, decoded, strict=True)], dim=1)


def mining_weights(distances: Tensor, easy_share: float, factor: float) -> Tensor:
    """1 for the hardest (1 - easy_share) of all `distances`, `factor` for the easy rest; any shape."""
    hard = max(1, int(distances.numel() * (1 - easy_share)))
    threshold = distances.flatten().kthvalue(distances.numel() - hard + 1).values
    return torch.where(distances < threshold, factor, 1.0)


def hard_mining_loss(encoded: Sequence[Tensor], decoded: Sequence[Tensor], easy_share: float, factor: float) -> Tensor:
    """Global cosine distance, the mean over images and groups of tokens (B, N, C).

    Its value does not depend on `easy_share`; the gradients of the easy locations are multiplied by `factor`.
    """
    with torch.no_grad():
        distances = cosine_distances(encoded, decoded)
    losses = []
    for s, (e, d) in enumerate(zip(encoded, decoded, strict=True)):
        weights = mining_weights(distances[:, s], easy_share, factor).unsqueeze(-1)  # (B, N, 1)
        if d.requires_grad:
            d.register_hook(lambda gradient, weights=weights: gradient * weights)
        losses.append((1 - F.cosine_similarity(e.flatten(1), d.flatten(1))).mean())
    return torch.stack(losses).mean()
