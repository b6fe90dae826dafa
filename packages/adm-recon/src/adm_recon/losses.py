"""Losses that compare images or masks pixel by pixel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from adcore.maps import gaussian_blur
from adcore.training.device import at_least_single
from torch import Tensor

SIGMA, WINDOW = 1.5, 11  # of the Gaussian window of Wang et al., in pixels
C1, C2 = 0.01**2, 0.03**2  # theirs, for values in [0, 1]


def ssim_map(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity at each pixel, in [-1, 1]: two (B, C, H, W) in [0, 1] -> (B, C, H, W) (Wang et al. 2004).

    Always in single precision: a variance is the difference of two large moments.
    """
    with torch.autocast(x.device.type, enabled=False):
        x, y = at_least_single(x), at_least_single(y)
        products = torch.cat([x, y, x * x, y * y, x * y], 1)
        moments = gaussian_blur(products.flatten(0, 1), SIGMA, WINDOW).view_as(products)  # under a Gaussian window
        mean_x, mean_y, xx, yy, xy = moments.chunk(5, 1)
        structure = (2 * (xy - mean_x * mean_y) + C2) / ((xx - mean_x**2).relu() + (yy - mean_y**2).relu() + C2)
        return structure * (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)


def focal_loss(logits: Tensor, mask: Tensor, gamma: float = 2.0) -> Tensor:
    """Mean focal loss of (B, classes, H, W) logits against (B, H, W) class numbers (Lin et al. 2017).

    All classes weigh alike. The same weight for normal pixels matters: without it a mask that is anomalous everywhere
    would be the best answer.
    """
    cross_entropy = F.cross_entropy(at_least_single(logits), mask.long(), reduction="none")  # -log p_t, (B, H, W)
    return ((1 - torch.exp(-cross_entropy)) ** gamma * cross_entropy).mean()
