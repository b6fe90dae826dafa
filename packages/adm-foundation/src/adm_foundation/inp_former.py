"""INP-Former: each image's own prototypes of what is normal are all that a decoder has to reconstruct it from.

Luo et al., Exploring Intrinsic Normal Prototypes within a Single Image for Universal Anomaly Detection, CVPR 2025.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
import torch.nn.functional as F
from adcore.model import AnomalyModel, Batch, Optimization, Prediction, Update
from adcore.training.device import at_least_single
from adcore.training.plan import Plan
from einops import rearrange
from pydantic import Field
from torch import Tensor, nn

from adm_foundation.dinomaly_objectives import cosine_distances, scale_gradient
from adm_foundation.reconstruction import (
    Mlp,
    check_groups,
    mean_of,
    prediction_of,
    small_weights,
    stable_adamw,
    token_encoder,
)


class CrossAttention(nn.Module):
    """Tokens attend to others: `focused` by a softmax, otherwise by the positive part of their cosine similarity.

    The second kind drops weak relations, and has a learned scale for each head.
    """

    def __init__(self, dim: int, heads: int, focused: bool) -> None:
        super().__init__()
        self.heads = heads
        self.scale = None if focused else nn.Parameter(torch.ones(heads, 1, 1))
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, others: Tensor) -> Tensor:
        """(B, N, C) and (B, M, C) -> (B, N, C)."""
        q = rearrange(self.q(x), "b n (h d) -> b h n d", h=self.heads)
        k, v = rearrange(self.kv(others), "b m (kv h d) -> kv b h m d", kv=2, h=self.heads)
        if self.scale is None:
            weights = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1)  # (B, heads, N, M)
        else:
            weights = (self.scale * (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1))).relu()  # A
        return self.proj(rearrange(weights @ v, "b h n d -> b n (h d)"))


class PrototypeExtractor(nn.Module):
    """Learned tokens gather an image's patches into its intrinsic normal prototypes."""

    def __init__(self, dim: int, heads: int, count: int) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.randn(count, dim))  # T
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-8), nn.LayerNorm(dim, eps=1e-8)
        self.attn = CrossAttention(dim, heads, focused=True)
        self.mlp = Mlp(dim)

    def forward(self, patches: Tensor) -> Tensor:
        """(B, N, C) -> prototypes (B, M, C)."""
        x = self.tokens.expand(len(patches), -1, -1)
        x = x + self.attn(self.norm1(x), self.norm1(patches))  # T'
        return x + self.mlp(self.norm2(x))  # P


class GuidedBlock(nn.Module):
    """A decoder block whose output is made of the prototypes alone: its attention has no way around it."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-8), nn.LayerNorm(dim, eps=1e-8)
        self.attn = CrossAttention(dim, heads, focused=False)
        self.mlp = Mlp(dim)

    def forward(self, x: Tensor, prototypes: Tensor) -> Tensor:
        """(B, N, C) and (B, M, C) -> (B, N, C)."""
        x = self.attn(self.norm1(x), self.norm1(prototypes))
        return x + self.mlp(self.norm2(x))


def coherence_loss(patches: Tensor, prototypes: Tensor) -> Tensor:
    """Mean cosine distance of the patches (B, N, C) to the nearest of their image's prototypes (B, M, C); in [0, 2]."""
    similarity = F.normalize(patches, dim=-1) @ F.normalize(prototypes, dim=-1).transpose(-2, -1)
    return (1 - similarity.amax(-1)).mean()


def soft_mining_loss(encoded: list[Tensor], decoded: list[Tensor], gamma: float) -> Tensor:
    """Cosine distance of whole groups, whose gradient at a patch is times (distance / mean distance)^gamma."""
    losses = []
    with torch.no_grad():
        distances = cosine_distances(encoded, decoded)  # (B, S, N)
        weights = (distances / distances.mean(dim=(0, 2), keepdim=True).clamp(min=1e-12)) ** gamma  # w
    for s, (e, d) in enumerate(zip(encoded, decoded, strict=True)):
        scale_gradient(d, weights[:, s].unsqueeze(-1))
        losses.append((1 - F.cosine_similarity(e.flatten(1), d.flatten(1))).mean())
    return torch.stack(losses).mean()


class InpFormer(AnomalyModel):
    """Prototypes of the image's own patches, a bottleneck, and a decoder that sees the patches through the prototypes.

    Input (B, 3, H, W), sides multiples of the encoder's patch size. Scores and maps are cosine distances in [0, 2].
    """

    def __init__(
        self,
        backbone: Annotated[str, Field(description="a DINOv2 encoder, with or without registers")] = (
            "dinov2reg_vit_base_14"
        ),
        weights: Annotated[str, Field(description='"pretrained", "random" or a file')] = "pretrained",
        target_layers: Annotated[
            tuple[int, ...], Field(min_length=1, description="encoder blocks to reconstruct, from 0")
        ] = (*range(2, 10),),
        encoder_groups: Annotated[
            tuple[tuple[int, ...], ...], Field(min_length=1, description="target layers averaged together")
        ] = ((0, 1, 2, 3), (4, 5, 6, 7)),
        decoder_groups: Annotated[
            tuple[tuple[int, ...], ...], Field(min_length=1, description="decoder blocks, from the last to the first")
        ] = ((0, 1, 2, 3), (4, 5, 6, 7)),
        decoder_depth: Annotated[int, Field(ge=1, description="blocks of the decoder")] = 8,
        num_prototypes: Annotated[int, Field(ge=1, description="prototypes of an image")] = 6,
        coherence_weight: Annotated[float, Field(ge=0, description="of the loss that keeps prototypes normal")] = 0.2,
        mining_gamma: Annotated[float, Field(ge=0, description="exponent of the weight of hard patches")] = 3.0,
        max_ratio: Annotated[float, Field(gt=0, le=1, description="share of pixels whose mean is the score")] = 0.01,
    ) -> None:
        super().__init__()
        check_groups(encoder_groups, decoder_groups, len(target_layers), decoder_depth)
        self.encoder_groups, self.decoder_groups = encoder_groups, decoder_groups
        self.coherence_weight, self.mining_gamma, self.max_ratio = coherence_weight, mining_gamma, max_ratio
        self.encoder = token_encoder(backbone, target_layers, weights)
        dim, heads = self.encoder.channels[0], self.encoder.net.blocks[0].attn.num_heads
        self.extractor = PrototypeExtractor(dim, heads, num_prototypes)
        self.bottleneck = Mlp(dim, bias=True)
        self.decoder = nn.ModuleList(GuidedBlock(dim, heads) for _ in range(decoder_depth))
        small_weights([module for part in self.trained for module in part.modules()])

    @property
    def trained(self) -> list[nn.Module]:
        """All but the encoder."""
        return [self.extractor, self.bottleneck, self.decoder]

    def reconstruct(self, images: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor, Tensor]:
        """(B, 3, H, W) -> encoder and decoder tokens, one of each a group, fused patches (B, N, C), prototypes (B, M, C)."""
        layers = [tokens[:, self.encoder.prefix :] for tokens in self.encoder.tokens(images)]
        fused = mean_of(layers)  # F_Q
        prototypes = self.extractor(fused)
        x, blocks = self.bottleneck(fused), []
        for block in self.decoder:
            x = block(x, prototypes)
            blocks.append(x)
        blocks.reverse()  # the first decoder block answers to the deepest encoder layers
        encoded = [mean_of(layers, group) for group in self.encoder_groups]
        decoded = [mean_of(blocks, group) for group in self.decoder_groups]
        return encoded, decoded, fused, prototypes

    def forward(self, images: Tensor) -> Prediction:
        """Score preprocessed images (B, 3, H, W): mean of the top `max_ratio` pixels of the blurred map."""
        encoded, decoded, _, _ = self.reconstruct(images)
        distances = cosine_distances(encoded, decoded).mean(1)
        return prediction_of(distances, self.encoder.grid(images), images.shape[-2:], self.max_ratio, self.roi_mask)

    def training_step(self, batch: Batch, step: int) -> Iterator[Update]:
        """Reconstruct, hard patches first, and keep every patch near a prototype."""
        encoded, decoded, fused, prototypes = self.reconstruct(batch.images)
        mining = soft_mining_loss(encoded, decoded, self.mining_gamma)
        coherence = coherence_loss(at_least_single(fused), at_least_single(prototypes))
        yield Update(mining + self.coherence_weight * coherence, logs={"coherence": coherence.detach()})

    def configure_optimizers(self, plan: Plan) -> dict[str, Optimization]:
        """StableAdamW, 1e-3 to 1e-4 along a cosine after a warm-up of 100 steps, gradients clipped to 0.1."""
        return {"main": stable_adamw(plan, self.trained, 1e-3, eps=1e-10)}
