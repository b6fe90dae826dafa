"""Small photographs of scored images, kept for the report so that no file is read twice."""

from __future__ import annotations

import io

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from adcore.preprocess import Preprocess

SIDE, QUALITY = 256, 90


def preview(image: Tensor, preprocess: Preprocess) -> bytes:
    """The model's input (C, h, w) as a JPEG of at most 256 px, without the normalisation."""
    from adcore.evaluation.plots import displayed  # imports matplotlib

    scale = SIDE / max(image.shape[-2:])
    if scale < 1:
        size = [max(1, round(length * scale)) for length in image.shape[-2:]]
        image = F.interpolate(image[None], size, mode="area")[0]
    if preprocess.mean is not None and preprocess.std is not None:
        mean, std = (torch.tensor(v, dtype=image.dtype)[:, None, None] for v in (preprocess.mean, preprocess.std))
        image = (image * std + mean).mul_(1e5).round_().div_(1e5)  # rounding is no value beyond [0, 1]
    data = io.BytesIO()
    Image.fromarray((displayed(image.numpy()) * 255).round().astype(np.uint8)).save(data, "JPEG", quality=QUALITY)
    return data.getvalue()
