"""The test images as a page shows them: small photographs, 8-bit maps and masks, within a limit of bytes."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from adcore.data.read_ahead import read_together
from adcore.evaluation.planes import planes
from adcore.evaluation.score import ScoredImage, Scoring
from adcore.preprocess import Preprocess

PICTURED = 3000  # images; of more, the rightly decided ones that are far from the threshold have no picture
PAGE_BYTES = 22_000_000  # of all pictures of a page, as base64
IMAGE_BYTES = 23_000  # of one image: 200 of them stay below 5 MB
FORMS = ((256, 75), (224, 60), (176, 50), (128, 45), (96, 40), (64, 30))  # longer side in px, quality: until it fits
MAP_SIDE, TRIED = 96, 8
STRIP = 1 << 20  # pixels of a map that are worked on at a time


def gallery(scoring: Scoring, threshold: float | None, preprocess: Preprocess) -> list[dict[str, Any]]:
    """A row an image: path, defect, label, score; where it has pictures, `photo`, `map` and `mask` as data URIs.

    `photo` is what the model sees, `map` has 8 bits over one range for all images (`shared_range`), `mask` is left out
    where it is empty or not known. `size`: height and width of the file's image. `to_pixel` [a, b, c, d]: a point (u, v)
    in [0, 1] of the photo is pixel (a u + b, c v + d) there.
    """
    from adcore.evaluation.plots import shared_range  # imports matplotlib

    images = scoring.images
    maps = planes([image for image in images if image.anomaly_map is not None], "anomaly_map")
    low, high = shared_range(maps) if maps else (0.0, 1.0)
    chosen = _pictured(images, threshold)
    limit = min(IMAGE_BYTES, PAGE_BYTES // max(1, len(chosen)))

    def pictures(index: int, forms: Sequence[tuple[int, int]] = FORMS) -> tuple[dict[str, Any], int]:
        one, place = images[index], 0
        found: dict[str, Any] = {"map": None, "mask": None}
        anomaly_map, mask = one.anomaly_map, one.mask
        if anomaly_map is not None:
            found["map"] = _picture(Image.fromarray(_in_8_bits(anomaly_map, low, high)), MAP_SIDE, 85)
        if mask is not None and mask.any():
            found["mask"] = _picture(Image.fromarray(mask.astype(np.uint8) * 255), 2 * MAP_SIDE, None)
        if one.preview is not None:
            left = limit - sum(len(text) for text in found.values() if text)
            found["photo"], place = _fitting(Image.open(io.BytesIO(one.preview)), left, forms)
        return found, place

    tried = chosen[:: max(1, len(chosen) // TRIED)]  # images of a category are alike: a few say which forms can fit
    forms = FORMS[min((pictures(index)[1] for index in tried), default=0) :]
    parts = [image.sample.image_path.as_posix() for image in images]
    root = os.path.commonpath([os.path.dirname(part) for part in parts]) if parts else ""
    rows = [
        {
            "path": os.path.relpath(part, root).replace(os.sep, "/") if root else part,
            "defect": image.sample.defect,
            "label": image.sample.label,
            "score": image.score,
            "size": image.size,
            "to_pixel": _to_pixel(preprocess.of(image.roi), *image.size),
        }
        for part, image in zip(parts, images, strict=True)
    ]
    for index, (found, _) in zip(chosen, read_together(lambda index: pictures(index, forms), chosen), strict=True):
        rows[index] |= found
    return rows


def _in_8_bits(anomaly_map: np.ndarray, low: float, high: float) -> np.ndarray:
    """A map (H, W) with 0 at `low` and 255 at `high`: (H, W) uint8, made in strips, since a map may be large."""
    levels = np.empty(anomaly_map.shape, np.uint8)
    height = max(1, STRIP // levels.shape[1])
    for start in range(0, len(levels), height):
        part = slice(start, start + height)
        level = np.clip((anomaly_map[part] - low) / max(high - low, 1e-12), 0, 1) * 255
        levels[part] = level.round()
    return levels


def _pictured(images: Sequence[ScoredImage], threshold: float | None) -> list[int]:
    """Indices of the images that get a picture, in order: all, or the wrong ones and those nearest to the threshold."""
    if len(images) <= PICTURED:
        return list(range(len(images)))
    cut = float(np.median([image.score for image in images])) if threshold is None else threshold
    wrong = [(image.score >= cut) != bool(image.sample.label) for image in images]
    order = sorted(range(len(images)), key=lambda i: (not wrong[i], abs(images[i].score - cut), i))
    return sorted(order[:PICTURED])


def _to_pixel(view: Preprocess, height: int, width: int) -> list[float]:
    """Of an image of `height` x `width`: back over the crop, the padding, the resize and the region."""
    if not height or not width:
        return [0.0] * 4
    frame, (rows, columns) = view.frame(height, width), view.plane_size(height, width)
    return [columns * frame.column_pixels, frame.x(0), rows * frame.row_pixels, frame.y(0)]


def _fitting(picture: Image.Image, limit: int, forms: Sequence[tuple[int, int]]) -> tuple[str, int]:
    """The first form of the picture with at most `limit` characters, or else the last; and its place in `forms`."""
    for place, (side, quality) in enumerate(forms):
        text = _picture(picture, side, quality)
        if len(text) <= limit or place == len(forms) - 1:
            return text, place
    raise ValueError("no form was given")


def _picture(picture: Image.Image, side: int, quality: int | None) -> str:
    """A data URI of at most `side` pixels: JPEG of this quality, or without it lossless and with hard edges."""
    scale = side / max(picture.size)
    if scale < 1:
        size = tuple(max(1, round(length * scale)) for length in picture.size)
        picture = picture.resize(size, Image.Resampling.BOX if quality else Image.Resampling.NEAREST)
    data = io.BytesIO()
    if quality:
        picture.save(data, "JPEG", quality=quality)
        kind = "jpeg"
    else:
        picture.convert("1").save(data, "PNG")
        kind = "png"
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"
