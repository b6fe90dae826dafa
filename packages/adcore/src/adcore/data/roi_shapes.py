"""Polygons and rectangles of a JSON file, as COCO annotations or as LabelMe writes them, and the pixels in them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from adcore_runtime.roi import Roi

from adcore.errors import DataError

Points = list[tuple[float, float]]  # x, y in original pixels
FORMS = "expected COCO annotations (images, annotations), or a LabelMe file (shapes, imageHeight, imageWidth)"


@dataclass(frozen=True)
class Drawing:
    """The polygons of one image."""

    file: Path  # that they are from
    image: str  # its name there
    size: tuple[int, int]  # height, width
    polygons: list[Points]

    def roi(self) -> Roi:
        """The pixels whose middle is in one of the polygons; DataError where there is none."""
        mask = np.zeros(self.size, bool)
        for points in self.polygons:
            fill(mask, points)
        if not mask.any():
            raise DataError(
                f"{self.file}: the region of interest of {self.image} is empty; draw a polygon or a rectangle"
            )
        return Roi.of(mask)


def read_drawings(path: Path) -> list[Drawing]:
    """The polygons of each image of a JSON file; DataError, with the file's name, for anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: cannot be read as JSON ({reason}); {FORMS}") from None
    try:
        labelme = isinstance(content, dict) and "shapes" in content
        drawings = [_labelme(path, content)] if labelme else _coco(path, content)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise DataError(f"{path}: {type(error).__name__}: {error}; {FORMS}") from None
    if not drawings:
        raise DataError(f"{path}: no image in it; {FORMS}")
    for drawing in drawings:
        _check_inside(drawing)
    return drawings


def fill(mask: np.ndarray, points: Sequence[tuple[float, float]]) -> None:
    """Mark the pixels of `mask` (H, W) whose middle lies in a polygon; where it crosses itself, by the even-odd rule."""
    x, y = np.array(points, float).T
    to_x, to_y = np.roll(x, -1), np.roll(y, -1)
    for row in range(max(0, int(y.min() - 0.5)), min(len(mask), int(y.max() + 1))):
        middle = row + 0.5
        crossed = (y <= middle) != (to_y <= middle)
        begin, end = (values[crossed] for values in (x, y))
        share = (middle - end) / (to_y[crossed] - end)
        edges = np.ceil(np.sort(begin + share * (to_x[crossed] - begin)) - 0.5).astype(int).clip(0, mask.shape[1])
        for left, right in edges.reshape(-1, 2):
            mask[row, left:right] = True


def _labelme(path: Path, content: dict[str, Any]) -> Drawing:
    polygons = []
    for shape in content["shapes"]:
        kind, points = shape.get("shape_type", "polygon"), _points(shape["points"])
        if kind not in ("polygon", "rectangle"):
            raise DataError(f"{path}: a shape '{kind}' is no region of interest; draw polygons and rectangles")
        polygons.append(_rectangle(*points[0], *points[1]) if kind == "rectangle" else points)
    size = _size(content["imageHeight"], content["imageWidth"])
    return Drawing(path, str(content.get("imagePath") or path.name), size, polygons)


def _coco(path: Path, content: dict[str, Any]) -> list[Drawing]:
    images = {
        image["id"]: Drawing(path, str(image["file_name"]), _size(image["height"], image["width"]), [])
        for image in content["images"]
    }
    for annotation in content["annotations"]:
        polygons = images[annotation["image_id"]].polygons
        segmentation = annotation.get("segmentation")
        if isinstance(segmentation, dict):
            raise DataError(f"{path}: a segmentation in run lengths is not read; save polygons, or give a mask")
        if segmentation:
            polygons += [_points(list(zip(flat[::2], flat[1::2], strict=True))) for flat in segmentation]
        else:
            left, top, width, height = map(float, annotation["bbox"])
            polygons.append(_rectangle(left, top, left + width, top + height))
    return list(images.values())


def _points(points: Any) -> Points:
    return [(float(x), float(y)) for x, y in points]


def _rectangle(left: float, top: float, right: float, bottom: float) -> Points:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _size(height: Any, width: Any) -> tuple[int, int]:
    if not (0 < int(height) <= 2**16 and 0 < int(width) <= 2**16):
        raise ValueError(f"an image of {width} x {height} px")
    return int(height), int(width)


def _check_inside(drawing: Drawing) -> None:
    """DataError for a point that is more than a pixel outside of the image; it is of another image."""
    height, width = drawing.size
    for x, y in (point for points in drawing.polygons for point in points):
        if not (-1 <= x <= width + 1 and -1 <= y <= height + 1):  # NaN, too
            raise DataError(
                f"{drawing.file}: the point ({x:g}, {y:g}) lies outside of {drawing.image} of {width}x{height} px; shapes are "
                "in pixels of the original image"
            )
