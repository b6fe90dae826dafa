"""Small photographs of scored images, kept for the report so that no file is read twice."""

from __future__ import annotations

import io

from PIL import Image
from torch import Tensor

from adcore.preprocess import Preprocess

SIDE, QUALITY = 256, 90


def preview(image: Tensor, preprocess: Preprocess) -> bytes:
    """The model's input (C, h, w) without the normalisation, or the plane that tiles are cut from, as a JPEG up to 256 px."""
    from adcore.evaluation.plots import displayed, in_8_bits  # imports matplotlib

    values = preprocess.without_normalization(image)
    if preprocess.tile is None and preprocess.mean is not None:
        values = values.round(5)  # rounding is no value beyond [0, 1]
    picture = in_8_bits(displayed(values))
    scale = SIDE / max(picture.size)
    if scale < 1:
        width, height = (max(1, round(length * scale)) for length in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BOX)
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=QUALITY)
    return data.getvalue()
