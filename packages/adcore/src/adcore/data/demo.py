"""A small dataset without a download: crops of photographs that scikit-image carries, with painted defects."""

from __future__ import annotations

import csv
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from adcore_runtime.decode import decode
from PIL import Image

from adcore.data.demo_defects import DEFECTS
from adcore.data.splits import derive_seed
from adcore.errors import DataError

PHOTOS = ("brick", "gravel", "grass", "coins")  # gray; files of scikit-image's wheel; the last two only for defects
CROP = 128  # one scale for all, as from a camera that is mounted
EDGES = (0, 170, 341, 512)  # of a chessboard laid over a photograph: nine fields, a crop lies within one
FIELDS = [(row, column) for row in range(3) for column in range(3)]
TRAIN_FIELDS = [field for field in FIELDS if sum(field) % 2 == 0]  # corners and middle: slow changes of light and
TEST_FIELDS = [field for field in FIELDS if sum(field) % 2 == 1]  # scale over the photograph are in both
TRAIN, GOOD, PER_DEFECT = 40, 20, 5  # images per category
COLUMNS = ("file", "photo", "top", "left", "size")


def write_demo_dataset(root: str | Path, seed: int = 42) -> Path:
    """Write the categories brick and gravel in MVTec layout below `root`, and `crops.csv` on where each was cut.

    Train crops come from the black fields of a chessboard laid over each photograph, test crops from the white ones.
    The same seed gives the same files, bit for bit. The folder appears complete or not at all. Raises DataError where it
    holds something already, and where scikit-image is not installed.
    """
    root = Path(root)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(f"{root}: exists already; choose another folder, or delete it")
    photos = {name: _photo(name) for name in PHOTOS}
    root.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
    try:
        rows = [row for name in DEFECTS for row in _write_category(temporary, name, photos, seed)]
        with open(temporary / "crops.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([COLUMNS, *rows])
        temporary.chmod(0o755)  # mkdtemp makes it private
        os.replace(temporary, root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return root


def _photo(name: str) -> np.ndarray:
    """(H, W) float64, 0 to 255, from the installed package's own files."""
    package = importlib.util.find_spec("skimage")  # not imported: its data functions may go to the network
    folders = package.submodule_search_locations if package else None
    file = Path(folders[0], "data", f"{name}.png") if folders else None
    if file is None or not file.is_file():
        raise DataError('the demo cuts its images from photographs in scikit-image; pip install "adcore[demo]"')
    return decode(file).values.astype(np.float64)


def _write_category(root: Path, name: str, photos: dict[str, np.ndarray], seed: int) -> list[tuple]:
    rng = np.random.default_rng(derive_seed("demo", seed, name))
    photo = photos[name]
    rows = []

    def cut(fields: list[tuple[int, int]], number: int, file: str) -> np.ndarray:
        top, left = (int(rng.integers(EDGES[k], EDGES[k + 1] - CROP + 1)) for k in fields[number % len(fields)])
        rows.append((file, name, top, left, CROP))
        return photo[top : top + CROP, left : left + CROP]

    for folder, count, fields in (("train/good", TRAIN, TRAIN_FIELDS), ("test/good", GOOD, TEST_FIELDS)):
        for number in range(count):
            file = f"{name}/{folder}/{number:03}.png"
            _write(root / file, cut(fields, number, file).astype(np.uint8))
    for defect, draw in DEFECTS[name].items():
        for number in range(PER_DEFECT):
            file = f"{name}/test/{defect}/{number:03}.png"
            image, mask = draw(cut(TEST_FIELDS, number, file), photos, rng)
            _write(root / file, image)
            _write(root / f"{name}/ground_truth/{defect}/{number:03}_mask.png", mask.astype(np.uint8) * 255)
    return rows


def _write(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
