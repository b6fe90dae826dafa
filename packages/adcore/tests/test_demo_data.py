"""The demo's dataset: real photographs, honest split, exact masks, the same every time."""

from __future__ import annotations

import csv
from collections import Counter
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from adcore.data.demo import CROP, PHOTOS, write_demo_dataset
from adcore.data.demo_defects import DEFECTS
from adcore.data.mvtec import MVTec
from adcore.errors import DataError
from PIL import Image

pytest.importorskip("skimage", reason='the demo needs scikit-image: pip install "adcore[demo]"')


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo_dataset(tmp_path_factory.mktemp("demo") / "data", seed=42)


@pytest.fixture(scope="module")
def photos() -> dict[str, np.ndarray]:
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    return {name: np.asarray(Image.open(folder / f"{name}.png")) for name in PHOTOS}


def crops(root: Path) -> list[dict[str, str]]:
    with open(root / "crops.csv", newline="") as file:
        return list(csv.DictReader(file))


def original(row: dict[str, str], photos: dict[str, np.ndarray]) -> np.ndarray:
    top, left, size = (int(row[key]) for key in ("top", "left", "size"))
    return photos[row["photo"]][top : top + size, left : left + size]


def test_it_is_an_ordinary_dataset(demo: Path) -> None:
    reader = MVTec(demo)
    assert reader.categories() == ["brick", "gravel"]
    for category in reader.categories():
        samples = reader.samples(category)
        counts = Counter((sample.split, sample.defect) for sample in samples)
        assert counts == {
            ("train", "good"): 40,
            ("test", "good"): 20,
            **{("test", defect): 5 for defect in DEFECTS[category]},
        }
        assert all(sample.mask_path for sample in samples if sample.label)
        some = next(sample for sample in samples if sample.label)
        assert reader.image(some).shape[1:] == reader.mask(some).shape


def test_train_and_test_share_no_pixel(demo: Path, photos: dict[str, np.ndarray]) -> None:
    """Paint the pixels of all train and of all test crops on each photograph: the two areas must not touch."""
    for name in DEFECTS:
        areas = {split: np.zeros(photos[name].shape, bool) for split in ("train", "test")}
        for row in crops(demo):
            if row["photo"] == name:
                top, left, size = (int(row[key]) for key in ("top", "left", "size"))
                areas[row["file"].split("/")[1]][top : top + size, left : left + size] = True
        assert not (areas["train"] & areas["test"]).any()
        assert areas["train"].mean() > 0.4
        assert areas["test"].mean() > 0.3


def test_the_scale_is_fixed_and_the_whole_photograph_is_in_training(demo: Path) -> None:
    """Light and scale change slowly over a photograph: each test crop has train crops on two sides of it."""
    rows = crops(demo)
    assert {int(row["size"]) for row in rows} == {CROP}
    assert {Image.open(file).size for file in demo.rglob("*.png")} == {(CROP, CROP)}
    places = {split: [row for row in rows if f"/{split}/" in row["file"]] for split in ("train", "test")}
    for row in places["test"]:
        same = [other for other in places["train"] if other["photo"] == row["photo"]]
        for along, across in (("top", "left"), ("left", "top")):
            near = [o for o in same if abs(int(o[across]) - int(row[across])) < CROP]
            before = any(int(other[along]) < int(row[along]) for other in near)
            after = any(int(other[along]) > int(row[along]) for other in near)
            if before and after:
                break
        else:
            pytest.fail(f"{row['file']} lies outside of what was trained on")


def test_crops_are_where_the_list_says(demo: Path, photos: dict[str, np.ndarray]) -> None:
    rows = [row for row in crops(demo) if "good" in row["file"]]
    assert len(rows) == 2 * 60
    for row in rows:
        assert np.array_equal(np.asarray(Image.open(demo / row["file"])), original(row, photos)), row["file"]


def test_masks_are_exact(demo: Path, photos: dict[str, np.ndarray]) -> None:
    """Outside its mask an image is the photograph, bit for bit; inside it is changed."""
    rows = [row for row in crops(demo) if "good" not in row["file"]]
    assert len(rows) == 2 * 4 * 5
    for row in rows:
        image = np.asarray(Image.open(demo / row["file"]))
        mask_file = row["file"].replace("/test/", "/ground_truth/").replace(".png", "_mask.png")
        levels = np.asarray(Image.open(demo / mask_file))
        assert set(np.unique(levels)) == {0, 255}
        mask, changed = levels > 0, image != original(row, photos)
        assert not (changed & ~mask).any(), row["file"]
        assert changed.sum() > 0.8 * mask.sum(), row["file"]
        assert 0.005 < mask.mean() < 0.15, row["file"]  # neither a speck nor half of the picture


def test_a_person_sees_each_defect(demo: Path, photos: dict[str, np.ndarray]) -> None:
    """The change is, on average over the mask, an eighth of the range of gray that the photograph uses, or more."""
    for row in crops(demo):
        if "good" not in row["file"]:
            before, after = original(row, photos).astype(int), np.asarray(Image.open(demo / row["file"])).astype(int)
            change = np.abs(after - before)[after != before].mean()
            assert change > np.ptp(np.percentile(photos[row["photo"]], [1, 99])) / 8, row["file"]


def test_the_seed_decides_every_bit(demo: Path, tmp_path: Path) -> None:
    def digest(root: Path) -> dict[str, str]:
        files = sorted(path for path in root.rglob("*") if path.is_file())
        return {path.relative_to(root).as_posix(): sha256(path.read_bytes()).hexdigest() for path in files}

    again = digest(write_demo_dataset(tmp_path / "again", seed=42))
    assert again == digest(demo)
    other = digest(write_demo_dataset(tmp_path / "other", seed=43))
    assert other.keys() == again.keys()
    images = [name for name in again if name.endswith(".png")]
    assert np.mean([other[name] == again[name] for name in images]) < 0.1


def test_nothing_is_overwritten_and_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/photo.png").touch()
    with pytest.raises(DataError, match="exists already"):
        write_demo_dataset(tmp_path / "mine")

    def fail(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(DEFECTS["brick"], "stain", fail)
    with pytest.raises(KeyboardInterrupt):
        write_demo_dataset(tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]


def test_without_scikit_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r'pip install "adcore\[demo\]"'):
        write_demo_dataset(tmp_path / "new")
    assert not list(tmp_path.iterdir())
