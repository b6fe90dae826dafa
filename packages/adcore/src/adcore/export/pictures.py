"""The images that an exported model is compared on: the user's, else crops of photographs, else seeded pictures."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from adcore_runtime.decode import decode
from adcore_runtime.listing import find_images
from PIL import Image

from adcore.data.demo import write_demo_dataset
from adcore.errors import ConfigError, DataError
from adcore.preprocess import Preprocess

FEWEST = 8


@dataclass(frozen=True)
class CheckImages:
    """Images, each a file or decoded, with their names; and where they came from, in words."""

    images: list[tuple[str, Path | np.ndarray]]
    source: str


def check_images(folder: Path | None, preprocess: Preprocess, camera: tuple[int, int] | None) -> CheckImages:
    """The images of `folder`, at least 8; without one the demo's crops where it is installed, else seeded pictures.

    What is not the user's is brought to the camera's size, and into the values that the model expects.
    """
    if folder is not None:
        files = find_images(folder)
        if len(files) < FEWEST:
            raise ConfigError(f"--check {folder} holds {len(files)} images, a check needs at least {FEWEST}")
        return CheckImages([(str(file), file) for file in files], str(folder))
    pictures, source = _own(preprocess)
    return CheckImages([(f"{source} {i}", _fitted(p, preprocess, camera)) for i, p in enumerate(pictures)], source)


def _own(preprocess: Preprocess) -> tuple[list[np.ndarray], str]:
    if preprocess.channels in (1, 3):
        with suppress(DataError):  # scikit-image is not installed
            return _demo_crops(), "demo crops"
    return seeded_pictures(preprocess), "seeded pictures"


def _demo_crops() -> list[np.ndarray]:
    """Four test crops of each of the demo's categories, with and without defects; DataError without scikit-image."""
    with tempfile.TemporaryDirectory() as folder:
        root = write_demo_dataset(Path(folder) / "demo")
        files = [sorted((root / category / "test").rglob("*.png")) for category in ("brick", "gravel")]
        return [decode(file).values for found in files for file in found[:: len(found) // 4][:4]]


def seeded_pictures(preprocess: Preprocess, count: int = FEWEST) -> list[np.ndarray]:
    """(H, W) or (H, W, C) uint8, larger than the model's input: a wave, fine noise, and a spot in every second picture."""
    height, width = (side + side // 2 + 3 for side in preprocess.size or preprocess.tile)
    generator, pictures = np.random.default_rng(0), []
    rows, columns = np.mgrid[:height, :width]
    for number in range(count):
        phases = generator.uniform(0, 2 * np.pi, preprocess.channels)
        waves = 0.5 + 0.3 * np.sin(columns[..., None] / 7 + rows[..., None] / 31 + phases)
        waves += generator.normal(0, 0.05, waves.shape)
        if number % 2:
            top, left = generator.integers(0, height // 2), generator.integers(0, width // 2)
            waves[top : top + height // 5, left : left + width // 5] = generator.uniform(0, 1, preprocess.channels)
        picture = (waves.clip(0, 1) * 255).round().astype(np.uint8)
        pictures.append(picture[..., 0] if preprocess.channels == 1 else picture)
    return pictures


def _fitted(picture: np.ndarray, preprocess: Preprocess, camera: tuple[int, int] | None) -> np.ndarray:
    """Of the camera's size; else with values in the range of the images that the model was trained on.

    A model that sees a fixed region gets the picture there, one with a region of interest an image of its size.
    """
    if camera:
        return _resized(picture, camera)
    if preprocess.roi:
        picture = _resized(picture, preprocess.roi.size)
    elif preprocess.region:
        x, y, width, height = preprocess.region
        around = np.zeros((y + height, x + width, picture.shape[2] if picture.ndim == 3 else 1), np.uint8)
        around[y:, x:] = _resized(picture, (height, width))
        picture = around
    if preprocess.value_range:
        low, high = preprocess.value_range
        return (low + (high - low) * picture / 255).astype(np.float32)
    return picture


def _resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) or (H, W, C) uint8 -> (*size, C)."""
    planes = picture if picture.ndim == 3 else picture[..., None]
    resized = [Image.fromarray(planes[..., c]).resize(size[::-1]) for c in range(planes.shape[2])]
    return np.stack([np.asarray(plane) for plane in resized], -1)
