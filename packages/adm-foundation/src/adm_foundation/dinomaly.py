"""Dinomaly: a decoder that cannot help attending everywhere reconstructs what a frozen DINOv2 sees in normal images.

Guo et al., Dinomaly: The Less Is More Philosophy in Multi-Class Unsupervised Anomaly Detection, CVPR 2025.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from adcore.model import AnomalyModel, Batch, Fit, Optimization, Prediction, Update
from adcore.training.plan import Plan
from einops import rearrange
from pydantic import Field
from torch import Tensor, nn

from adm_foundation.dinomaly_auxiliary import NoiseClassifier
from adm_foundation.dinomaly_objectives import Focal, Gem, Plain, Scale, cosine_distances
from adm_foundation.reconstruction import (
    Mlp,
    check_groups,
    mean_of,
    prediction_of,
    small_weights,
    stable_adamw,
    token_encoder,
)


class LinearAttention(nn.Module):
    """Attention with phi(x) = elu(x) + 1 in place of the softmax: it cannot focus, so it cannot copy single tokens.

    Katharopoulos et al., Transformers are RNNs, ICML 2020.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        q, k, v = rearrange(self.qkv(x), "b n (qkv h d) -> qkv b h n d", qkv=3, h=self.heads)
        q, k = F.elu(q) + 1, F.elu(k) + 1
        context = k.transpose(-2, -1) @ v  # (B, heads, d, d)
        weight = q @ k.sum(-2).unsqueeze(-1)  # (B, heads, N, 1)
        return self.proj(rearrange((q @ context) / weight, "b h n d -> b n (h d)"))


class NarrowMlp(nn.Module):
    """Dinomaly2's bottleneck: a linear layer to few channels, then an MLP; dropout after each layer."""

    def __init__(self, dim: int, width: int, dropout: float) -> None:
        super().__init__()
        self.narrow = nn.Linear(dim, width)
        self.fc1 = nn.Linear(width, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        return self.drop(self.fc2(self.drop(F.gelu(self.fc1(self.drop(self.narrow(x)))))))


class DecoderBlock(nn.Module):
    """A pre-norm transformer block with linear attention."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-8)
        self.attn = LinearAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-8)
        self.mlp = Mlp(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Dinomaly(AnomalyModel):
    """Encoder, noisy bottleneck, decoder; the score is the cosine distance between groups of encoder and decoder layers.

    Dinomaly2 (Guo et al., arXiv 2510.17611) is the same with `recentred` targets and a narrow bottleneck.
    Input (B, 3, H, W), sides multiples of the encoder's patch size. Scores and maps lie in [0, 2]; with the auxiliary
    classifier its logits are averaged into them. The variants GEM, Focal, Aux and Scale are this project's own.
    """

    def __init__(
        self,
        backbone: Annotated[str, Field(description="a DINOv2 encoder, with or without registers")] = (
            "dinov2_vit_base_14"
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
        bottleneck_dropout: Annotated[float, Field(ge=0, lt=1, description="noise of the bottleneck")] = 0.2,
        mining_share: Annotated[float, Field(ge=0, le=1, description="share of easy locations in the end")] = 0.9,
        mining_steps: Annotated[int, Field(ge=1, description="steps in which that share grows from 0")] = 1000,
        mining_factor: Annotated[float, Field(ge=0, le=1, description="gradients of easy locations times this")] = 0.1,
        max_ratio: Annotated[float, Field(gt=0, le=1, description="share of pixels whose mean is the score")] = 0.01,
        recentred: Annotated[
            bool, Field(description="Dinomaly2: patches are compared as they differ from the image's class token")
        ] = False,
        bottleneck_width: Annotated[
            int | None, Field(ge=1, description="Dinomaly2: the bottleneck first narrows to so many channels")
        ] = None,
        objective: Annotated[Literal["plain", "gem", "focal", "scale"], Field(description="loss and aggregation")] = (
            "plain"
        ),
        gem_p: Annotated[float, Field(ge=1, description="gem: exponent of the mean over groups")] = 3.0,
        focal_gamma: Annotated[float, Field(ge=0, description="focal: exponent of the relative distance")] = 2.0,
        scale_weight: Annotated[float, Field(ge=0, description="scale: share of the weighted map in the loss")] = 0.01,
        auxiliary_weight: Annotated[
            float | None, Field(ge=0, description="of the noise classifier's loss; none: no such classifier")
        ] = None,
        noise_std: Annotated[
            float, Field(gt=0, description="auxiliary: noise in units of a channel's deviation")
        ] = 0.5,
    ) -> None:
        super().__init__()
        check_groups(encoder_groups, decoder_groups, len(target_layers), decoder_depth)
        self.encoder_groups, self.decoder_groups = encoder_groups, decoder_groups
        self.mining_share, self.mining_steps = mining_share, mining_steps
        self.max_ratio, self.auxiliary_weight, self.noise_seed = max_ratio, auxiliary_weight, 0
        self.encoder = token_encoder(backbone, target_layers, weights)
        dim, heads = self.encoder.channels[0], self.encoder.net.blocks[0].attn.num_heads
        self.recentred = recentred
        self.bottleneck = Mlp(dim, bottleneck_dropout)
        if bottleneck_width is not None:
            self.bottleneck = NarrowMlp(dim, bottleneck_width, bottleneck_dropout)
        self.decoder = nn.ModuleList(DecoderBlock(dim, heads) for _ in range(decoder_depth))
        small_weights([*self.bottleneck.modules(), *self.decoder.modules()])
        self.objective = {
            "plain": lambda: Plain(mining_factor),
            "gem": lambda: Gem(gem_p, mining_factor),
            "focal": lambda: Focal(focal_gamma),
            "scale": lambda: Scale(len(encoder_groups), scale_weight, mining_factor),
        }[objective]()
        self.auxiliary = None if auxiliary_weight is None else NoiseClassifier(dim, noise_std)

    def reconstruct(self, layers: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Encoder layers (B, R + N, C) -> encoder and decoder tokens (B, N, C), one of each a group."""
        x = self.bottleneck(mean_of(layers))
        blocks = []
        for block in self.decoder:
            x = block(x)
            blocks.append(x)
        blocks.reverse()  # the first decoder block answers to the deepest encoder layers
        prefix = self.encoder.prefix
        encoded = [self.target(mean_of(layers, group)) for group in self.encoder_groups]
        decoded = [mean_of(blocks, group)[:, prefix:] for group in self.decoder_groups]
        return encoded, decoded

    def target(self, tokens: Tensor) -> Tensor:
        """Encoder tokens (B, R + N, C) -> what the decoder is to give at the patches, (B, N, C)."""
        patches = tokens[:, self.encoder.prefix :]
        if not self.recentred:
            return patches
        return F.layer_norm(patches - tokens[:, :1], patches.shape[-1:])  # the first token is the class token

    def forward(self, images: Tensor) -> Prediction:
        """Score preprocessed images (B, 3, H, W): mean of the top `max_ratio` pixels of the blurred map."""
        layers = self.encoder.tokens(images)
        odd = self.objective.aggregate(cosine_distances(*self.reconstruct(layers)))  # (B, N)
        if self.auxiliary is not None:
            odd = (odd + self.auxiliary(self.fused(layers))) / 2
        return prediction_of(odd, self.grid(images), images.shape[-2:], self.max_ratio, self.roi_mask)

    def training_step(self, batch: Batch, step: int) -> Iterator[Update]:
        """Reconstruct; the share of easy locations that hold back their gradients grows with `step`.

        The auxiliary classifier only reads the frozen encoder, so it learns beside the decoder, in an update of its own.
        """
        layers = self.encoder.tokens(batch.images)
        encoded, decoded = self.reconstruct(layers)
        easy_share = self.mining_share * min(1.0, step / self.mining_steps)  # p
        yield Update(self.objective.loss(encoded, decoded, easy_share))
        if self.auxiliary is not None:
            generator = torch.Generator().manual_seed(self.noise_seed + step)  # a resumed fit draws the same noise
            loss = self.auxiliary.loss(self.fused(layers), self.grid(batch.images), generator)
            yield Update(self.auxiliary_weight * loss, "auxiliary")

    def fused(self, layers: list[Tensor]) -> Tensor:
        """Encoder layers (B, R + N, C) -> their mean at the patches, (B, N, C)."""
        return mean_of(layers)[:, self.encoder.prefix :]

    def grid(self, images: Tensor) -> tuple[int, int]:
        """Rows and columns of patches, N of them."""
        return self.encoder.grid(images)

    def on_fit_start(self, fit: Fit) -> None:
        """The auxiliary noise follows the fit's seed."""
        self.noise_seed = fit.plan.seed

    def configure_optimizers(self, plan: Plan) -> dict[str, Optimization]:
        """StableAdamW, 2e-3 to 2e-4 along a cosine after a warm-up of 100 steps, gradients clipped to 0.1."""
        parts = {"main": [self.bottleneck, self.decoder, self.objective]}
        if self.auxiliary is not None:
            parts["auxiliary"] = [self.auxiliary]
        return {name: stable_adamw(plan, modules, 2e-3) for name, modules in parts.items()}
