"""What Dinomaly and INP-Former share: the frozen encoder, the MLP, how layers are joined, the score and the optimizer."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from adcore.backbones.networks import describe_network
from adcore.backbones.transformer import TransformerFeatures
from adcore.errors import ConfigError
from adcore.maps import count_seen, gaussian_blur, upsample, within
from adcore.model import Optimization, Prediction
from adcore.registry import backbone_card
from adcore.training.plan import Plan
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from adm_foundation.optimizers import StableAdamW

SCORE_SIZE = (256, 256)  # maps are compared at this size, whatever the input's


def token_encoder(backbone: str, target_layers: tuple[int, ...], weights: str) -> TransformerFeatures:
    """The frozen DINOv2, whose tokens are not normalised and whose positions are resampled as DINOv2's own code does."""
    card = backbone_card(backbone)
    whole = describe_network(card)
    if type(whole) is not VisionTransformer:
        raise ConfigError(
            f"backbone '{backbone}' is no plain vision transformer; choose dinov2_vit_base_14, for example"
        )
    if not 0 <= min(target_layers) <= max(target_layers) < len(whole.blocks):
        raise ConfigError(
            f"target_layers {target_layers}: backbone '{backbone}' has the layers 0 to {len(whole.blocks) - 1}"
        )
    return TransformerFeatures(backbone, [f"block{i}" for i in target_layers], weights, norm=False, antialias=False)


class Mlp(nn.Module):
    """Two linear layers; as the bottleneck its dropout is the only noise of the whole method."""

    def __init__(self, dim: int, dropout: float = 0.0, bias: bool = False) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim, bias=bias)
        self.fc2 = nn.Linear(4 * dim, dim, bias=bias)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        return self.drop(self.fc2(self.drop(F.gelu(self.fc1(self.drop(x))))))


def mean_of(layers: list[Tensor], indices: tuple[int, ...] | None = None) -> Tensor:
    """Mean of the tokens of some layers, of all where no indices are given."""
    return torch.stack(layers if indices is None else [layers[i] for i in indices]).mean(0)


Groups = tuple[tuple[int, ...], ...]


def check_groups(encoder: Groups, decoder: Groups, layers: int, depth: int) -> None:
    """ConfigError unless the groups of `layers` encoder layers and of `depth` decoder blocks are as many, and none is empty."""
    for name, groups, count in (("encoder_groups", encoder, layers), ("decoder_groups", decoder, depth)):
        wrong = [i for group in groups for i in group if not 0 <= i < count]
        if wrong or not all(groups):
            raise ConfigError(f"{name} {groups} must hold numbers from 0 to {count - 1}, and no group may be empty")
    if len(encoder) != len(decoder):
        raise ConfigError(f"{len(encoder)} encoder_groups need as many decoder_groups ({len(decoder)})")


def prediction_of(
    distances: Tensor, grid: tuple[int, int], size: tuple[int, int], max_ratio: float, seen: np.ndarray | None
) -> Prediction:
    """Distances (B, N) of a `grid` of patches as a map of `size`; the score is the mean of its top `max_ratio`, blurred.

    `seen`: the pixels that count, `max_ratio` is a part of them.
    """
    maps = upsample(within(distances.unflatten(1, grid), seen), size, align_corners=True)
    blurred = within(gaussian_blur(upsample(maps, SCORE_SIZE), sigma=4.0, kernel_size=5), seen).flatten(1)
    count = max(1, int(count_seen(seen, SCORE_SIZE) * max_ratio))
    return Prediction(blurred.topk(count, dim=1).values.mean(1), maps)


def small_weights(modules: Iterable[nn.Module]) -> None:
    """Linear layers start with weights of deviation 0.01 and without bias."""
    for module in modules:
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.01, a=-0.03, b=0.03)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def stable_adamw(plan: Plan, modules: Iterable[nn.Module], learning_rate: float, eps: float = 1e-8) -> Optimization:
    """StableAdamW down to a tenth of its rate along a cosine after a warm-up of 100 steps, gradients clipped to 0.1."""
    return plan.optimization(
        [p for module in modules for p in module.parameters() if p.requires_grad],
        StableAdamW,
        learning_rate=learning_rate,
        eps=eps,
        weight_decay=1e-4,
        amsgrad=True,
        scheduler={
            "type": "warmup_cosine",
            "total_steps": plan.optimizer_steps,
            "warmup_steps": min(100, plan.optimizer_steps // 2),  # a short fit still reaches its rate
            "final_ratio": 0.1,
        },
        clip_norm=0.1,
    )
