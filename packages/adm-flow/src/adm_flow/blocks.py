"""Parts that several flows share: the coupling block and the normalisation of the features in front of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from adcore.errors import ConfigError
from FrEIA.modules import AllInOneBlock
from torch import Tensor, nn


class CouplingBlock(AllInOneBlock):
    """FrEIA's affine coupling with global affine transform, its fixed channel permutation kept as an index.

    FrEIA multiplies with a C x C permutation matrix, which costs several times a gather and C² numbers in the artifact.
    """

    def __init__(
        self, dims_in: Sequence[tuple[int, ...]], dims_c: Sequence[tuple[int, ...]] = (), **options: Any
    ) -> None:
        super().__init__(dims_in, list(dims_c), **options)
        del self.w_perm, self.w_perm_inv
        self.register_buffer("permutation", torch.randperm(self.in_channels))

    def _permute(self, x: Tensor, rev: bool = False) -> tuple[Tensor, Tensor]:
        scale = self.global_scale_activation(self.global_scale)  # (1, C, 1, 1)
        log_det = scale.log().sum()  # of one position
        if rev:
            return (x.index_select(1, self.permutation.argsort()) - self.global_offset) / scale, log_det
        return (x * scale + self.global_offset).index_select(1, self.permutation), log_det


def convolutions(kernel_size: int, hidden_ratio: float) -> Callable[[int, int], nn.Module]:
    """A constructor of the subnets that predict a coupling's scale and shift: two convolutions that keep the size."""

    def subnet(channels_in: int, channels_out: int) -> nn.Module:
        hidden = int(channels_in * hidden_ratio)
        return nn.Sequential(
            nn.Conv2d(channels_in, hidden, kernel_size, padding="same"),
            nn.ReLU(),
            nn.Conv2d(hidden, channels_out, kernel_size, padding="same"),
        )

    return subnet


class MapNorm(nn.Module):
    """LayerNorm over a whole feature map (C, H, W) with a weight and a bias for every element of it.

    H and W are those of the first map seen in training, or of the state that is loaded; until then there is one weight a
    channel. ConfigError for maps of another size after that.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        shape = x.shape[1:]
        if self.weight.shape != shape:
            if self.weight.shape[1:] != (1, 1):
                raise ConfigError(
                    f"the model was trained on feature maps of {tuple(self.weight.shape[1:])}, this image gives "
                    f"{tuple(shape[1:])}; resize it to the size that the model was trained with"
                )
            if self.training:  # the parameters stay the same objects, so that the optimizer keeps them
                self.weight.data, self.bias.data = (p.data.expand(shape).clone() for p in (self.weight, self.bias))
            else:
                return F.layer_norm(x, shape) * self.weight + self.bias
        return F.layer_norm(x, shape, self.weight, self.bias)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        for name, parameter in self.named_parameters():
            stored = state_dict.get(prefix + name)
            if stored is not None and stored.shape[0] == parameter.shape[0]:
                parameter.data = torch.empty_like(stored, device=parameter.device)
        super()._load_from_state_dict(state_dict, prefix, *args)
