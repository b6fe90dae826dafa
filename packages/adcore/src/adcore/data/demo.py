"""A small dataset without a download: crops of photographs that scikit-image carries, with painted faults."""

from __future__ import annotations

import csv
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from adcore.data.decode import decode
from adcore.data.demo_defects import DEFECTS
from adcore.data.splits import derive_seed
from adcore.errors import DataError

PHOTOS = ("brick", "grass", "gravel")  # 512 x 512, gray; files of scikit-image's wheel
CROP = 192
BORDER = (
    288  # columns left of it are for training, the others for test, so that no crop of one shows a pixel of the other
)
TRAIN, GOOD, PER_DEFECT = 40, 20, 5  # images per category
COLUMNS = ("file", "photo", "top", "left", "size", "visibility")


def write_demo_dataset(root: str | Path, seed: int = 42) -> Path:
    """Write the categories brick, grass and gravel in MVTec layout below `root`, and `crops.csv` on where each was cut.

    Train crops come from the left of each photograph and test crops from the right. The same seed gives the same files,
    bit for bit. The folder appears complete or not at all. Raises DataError where it holds something already, and
    where scikit-image is not installed.
    """
    root = Path(root)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(f"{root}: exists already; choose another folder, or delete it")
    photos = {name: _photo(name) for name in PHOTOS}
    root.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
    try:
        rows = [row for name in PHOTOS for row in _write_category(temporary, name, photos, seed)]
        with open(temporary / "crops.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([COLUMNS, *rows])
        temporary.chmod(0o755)  # mkdtemp makes it private
        os.replace(temporary, root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return root


def _photo(name: str) -> np.ndarray:
    """(512, 512) float64, 0 to 255, from the installed package's own files."""
    package = importlib.util.find_spec("skimage")  # not imported: its data functions may go to the network
    folders = package.submodule_search_locations if package else None
    file = Path(folders[0], "data", f"{name}.png") if folders else None
    if file is None or not file.is_file():
        raise DataError('the demo cuts its images from photographs in scikit-image; pip install "adcore[demo]"')
    return decode(file).values.astype(np.float64)


def _write_category(root: Path, name: str, photos: dict[str, np.ndarray], seed: int) -> list[tuple]:
    rng = np.random.default_rng(derive_seed("demo", seed, name))
    photo = photos[name]
    others = [other for other in PHOTOS if other != name]
    rows = []

    def cut(columns: tuple[int, int]) -> tuple[int, int, np.ndarray]:
        top = int(rng.integers(photo.shape[0] - CROP + 1))
        left = int(rng.integers(columns[0], columns[1] - CROP + 1))
        return top, left, photo[top : top + CROP, left : left + CROP]

    for folder, count, columns in (
        ("train/good", TRAIN, (0, BORDER)),
        ("test/good", GOOD, (BORDER, photo.shape[1])),
    ):
        for number in range(count):
            top, left, crop = cut(columns)
            file = f"{name}/{folder}/{number:03}.png"
            _write(root / file, crop.astype(np.uint8))
            rows.append((file, name, top, left, CROP, ""))
    for defect, draw in DEFECTS.items():
        for number, visibility in enumerate(np.linspace(0, 1, PER_DEFECT)):
            top, left, crop = cut((BORDER, photo.shape[1]))
            place = rng.integers(photo.shape[0] - CROP + 1, size=2)
            material = photos[others[number % 2]][place[0] : place[0] + CROP, place[1] : place[1] + CROP]
            image, mask = draw(crop, material, float(visibility), rng)
            file = f"{name}/test/{defect}/{number:03}.png"
            _write(root / file, image)
            _write(root / f"{name}/ground_truth/{defect}/{number:03}_mask.png", mask.astype(np.uint8) * 255)
            rows.append((file, name, top, left, CROP, f"{visibility:.2f}"))
    return rows


def _write(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
