"""SSPCAB: the self-supervised predictive convolutional attentive block (Ristea et al., CVPR 2022)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class SSPCAB(nn.Module):
    """Predicts each position of a feature map from the corners of its neighbourhood, (B, C, H, W) -> (B, C, H, W).

    The centre of the receptive field is masked, so that the block must learn what normally surrounds a position. Its loss
    is the mean squared error between its input and its output.
    """

    def __init__(self, channels: int, kernel_size: int = 1, dilation: int = 1, reduction: int = 8) -> None:
        super().__init__()
        self.pad = kernel_size + dilation  # the receptive field reaches k' + d beyond its 1x1 centre M
        self.far = kernel_size + 2 * dilation + 1  # from a corner kernel K_i to the one opposite
        self.corners = nn.ModuleList(nn.Conv2d(channels, channels, kernel_size) for _ in range(4))  # K_1 .. K_4
        self.activation = nn.ReLU()
        self.squeeze = nn.Linear(channels, channels // reduction)  # channel attention: squeeze and excitation
        self.excite = nn.Linear(channels // reduction, channels)

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (self.pad,) * 4)
        near, far = slice(None, -self.far), slice(self.far, None)
        windows = [(near, near), (near, far), (far, near), (far, far)]  # rows, columns that each corner sees
        x = sum(conv(padded[..., rows, cols]) for conv, (rows, cols) in zip(self.corners, windows, strict=True))
        x = self.activation(x)
        weights = self.excite(self.squeeze(x.mean((2, 3))).relu()).sigmoid()  # (B, C)
        return x * weights[..., None, None]
