"""How much a stitched map differs from the map of the whole image, at the borders of tiles and elsewhere.

    python tools/seams.py MODEL IMAGES [--overlaps 0 32 64 128] [--count 8]

MODEL was trained with `tile`, and can see an image of any size. Differences are shares of the range of the whole image's map.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import adcore
import numpy as np
import torch
from adcore.data.dataset import prepare
from adcore.data.image_io import read_image
from adcore.evaluation.score import score_image
from adcore_runtime.listing import find_images
from adcore_runtime.tiles import tiles_of

NEAR = 8  # pixels on each side of a border
CELL = 32  # images are cut to multiples of it: networks lay their cells otherwise over an image of another remainder


def at_borders(size: tuple[int, int], tile: tuple[int, int], overlap: tuple[int, int]) -> np.ndarray:
    """(H, W) bool: near a border of a tile, other than that of the image."""
    near = np.zeros(size, bool)
    for rows, columns in tiles_of(size, tile, overlap):
        for edge in (rows.start, rows.stop):
            if 0 < edge < size[0]:
                near[max(0, edge - NEAR) : edge + NEAR, columns] = True
        for edge in (columns.start, columns.stop):
            if 0 < edge < size[1]:
                near[rows, max(0, edge - NEAR) : edge + NEAR] = True
    return near


def main() -> None:
    """Print a table: overlap, mean difference near borders and elsewhere, and their 99th percentiles."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--overlaps", type=int, nargs="+", default=[0, 32, 64, 128])
    parser.add_argument("--count", type=int, default=8)
    arguments = parser.parse_args()
    predictor = adcore.load(arguments.model)
    view = predictor.preprocess
    planes = [
        prepare(read_image(path, view.channels), None, view, path)[0]
        for path in find_images(arguments.images)[: arguments.count]
    ]
    planes = [plane[..., : plane.shape[-2] // CELL * CELL, : plane.shape[-1] // CELL * CELL] for plane in planes]
    with torch.inference_mode():
        whole = [predictor.model(view.normalized(plane)[None]).anomaly_map[0].numpy() for plane in planes]
    print(
        "| overlap | near borders, mean | elsewhere, mean | near borders, 99 % | elsewhere, 99 % |\n|---|---|---|---|---|"
    )
    for overlap in arguments.overlaps:
        tiled = replace(view, tile_overlap=(overlap, overlap))
        parts = {True: [], False: []}
        for plane, expected in zip(planes, whole, strict=True):
            found = score_image(predictor.model, plane, tiled, "cpu", "an image")[1]
            difference = np.abs(found - expected) / np.ptp(expected)
            near = at_borders(found.shape, tiled.tile, tiled.tile_overlap)
            for where in parts:
                parts[where].append(difference[near == where])
        values = [np.concatenate(parts[where]) for where in (True, False)]
        means = " | ".join(f"{part.mean():.4f}" for part in values)
        tails = " | ".join(f"{np.quantile(part, 0.99):.4f}" for part in values)
        print(f"| {overlap} | {means} | {tails} |")


if __name__ == "__main__":
    main()
