"""Losses that compare images or masks pixel by pixel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from adcore.training.device import at_least_single
from torch import Tensor

SIGMA, WINDOW = 1.5, 11  # of the Gaussian window of Wang et al., in pixels


def ssim_map(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity at each pixel, in [-1, 1]: two (B, C, H, W) in [0, 1] -> (B, C, H, W) (Wang et al. 2004).

    Always in single precision: a variance is the difference of two large moments.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure  # takes 1.5 s to import

    with torch.autocast(x.device.type, enabled=False):
        _, values = structural_similarity_index_measure(
            at_least_single(x),
            at_least_single(y),
            sigma=SIGMA,
            kernel_size=WINDOW,
            data_range=1.0,
            return_full_image=True,
        )
    return values


def focal_loss(logits: Tensor, mask: Tensor, gamma: float = 2.0) -> Tensor:
    """Mean focal loss of (B, classes, H, W) logits against (B, H, W) class numbers (Lin et al. 2017).

    All classes weigh alike. The same weight for normal pixels matters: without it a mask that is anomalous everywhere
    would be the best answer.
    """
    cross_entropy = F.cross_entropy(at_least_single(logits), mask.long(), reduction="none")  # -log p_t, (B, H, W)
    return ((1 - torch.exp(-cross_entropy)) ** gamma * cross_entropy).mean()
