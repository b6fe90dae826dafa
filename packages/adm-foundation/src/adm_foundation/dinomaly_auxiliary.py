"""The auxiliary classifier of Dinomaly Aux: it tells an encoder's features from copies with noise on some locations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from adcore.data.textures import perlin_noise
from torch import Tensor, nn

MASK_THRESHOLD = 0.2  # Perlin noise above it marks about a quarter of the locations


class NoiseClassifier(nn.Module):
    """A 1x1 convolution head, that is a small network on each token by itself.

    It has a hidden layer: noise with mean 0 moves no linear score on average, only a curved one can see it.
    """

    def __init__(self, dim: int, noise_std: float) -> None:
        super().__init__()
        self.noise_std = noise_std
        with torch.random.fork_rng(devices=[]):  # the decoder's dropout draws the same numbers with and without this
            self.hidden = nn.Linear(dim, dim // 4)
            self.output = nn.Linear(dim // 4, 1)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, C) -> logits (B, N), high where noise is seen."""
        return self.output(F.relu(self.hidden(tokens)))[..., 0]

    def loss(self, tokens: Tensor, grid: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Binary cross-entropy over clean tokens (B, N, C) and their perturbed copies; `grid` is their (h, w)."""
        noisy, mask = self.perturb(tokens, grid, generator)
        targets = torch.cat([torch.zeros_like(mask), mask])
        return F.binary_cross_entropy_with_logits(self(torch.cat([tokens, noisy])), targets)

    def perturb(self, tokens: Tensor, grid: tuple[int, int], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Tokens with Gaussian noise on a Perlin mask, in units of each channel's deviation; and the mask (B, N)."""
        mask = (perlin_noise(len(tokens), grid, (0, 2), generator) > MASK_THRESHOLD).flatten(1).to(tokens)
        noise = torch.randn(tokens.shape, generator=generator).to(tokens)
        deviation = tokens.std(dim=(0, 1), correction=0)  # (C,)
        return tokens + self.noise_std * deviation * noise * mask.unsqueeze(-1), mask
