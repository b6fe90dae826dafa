"""Readers must find what is there, and say what is not."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from adcore.data.btad import BTAD
from adcore.data.mvtec import MVTec
from adcore.data.samples import ANOMALOUS, NORMAL, Sample
from adcore.data.visa import VisA
from adcore.registry import open_dataset

Make = Callable[..., Path]
Refuses = Callable[..., None]


def summary(samples: list[Sample]) -> dict[tuple[str, int, str], int]:
    """Number of samples by split, label and defect."""
    return dict(Counter((sample.split, sample.label, sample.defect) for sample in samples))


def masks(samples: list[Sample], root: Path) -> dict[str, str]:
    """Masks by image, as paths below root."""
    return {
        sample.image_path.relative_to(root).as_posix(): sample.mask_path.relative_to(root).as_posix()
        for sample in samples
        if sample.mask_path
    }


# --- MVTec AD and BTAD


def test_mvtec(tmp_path: Path, make_images: Make) -> None:
    make_images(
        tmp_path, "nut/train/good/{1-3}.png", "nut/test/good/1.png", "nut/test/cut/{1-2}.png", "nut/test/hole/1.png"
    )
    make_images(tmp_path, "nut/ground_truth/cut/1_mask.png", "nut/ground_truth/cut/2.bmp", "lid/train/good/1.png")
    make_images(tmp_path, "nut/test/cut/._1.png")  # what a Mac leaves behind
    (tmp_path / "nut/license.txt").touch()
    reader = MVTec(tmp_path)
    assert reader.categories() == ["lid", "nut"]
    samples = reader.samples("nut")
    assert summary(samples) == {
        ("train", 0, "good"): 3,
        ("test", 0, "good"): 1,
        ("test", 1, "cut"): 2,
        ("test", 1, "hole"): 1,
    }
    assert masks(samples, tmp_path / "nut") == {
        "test/cut/1.png": "ground_truth/cut/1_mask.png",
        "test/cut/2.png": "ground_truth/cut/2.bmp",
    }
    assert {sample.category for sample in samples} == {"nut"}
    assert reader.mask(samples[-1]) is None  # the hole has none
    marked = next(sample for sample in samples if sample.mask_path)
    assert reader.mask(marked).sum() == 6
    assert reader.image(marked).shape == (3, 8, 12)


def test_a_root_that_is_one_category_goes_by_its_name(tmp_path: Path, make_images: Make) -> None:
    root = make_images(tmp_path / "nut", "train/good/{1-3}.png", "test/good/1.png", "validation/good/1.png")
    assert MVTec(root).categories() == ["nut"]
    assert summary(MVTec(root).samples("nut")) == {
        ("train", 0, "good"): 3,
        ("val", 0, "good"): 1,
        ("test", 0, "good"): 1,
    }


def test_an_equal_name_with_mask_goes_before_one_without(tmp_path: Path, make_images: Make) -> None:
    make_images(tmp_path, "train/good/1.png", "test/cut/1.png", "ground_truth/cut/1.png", "ground_truth/cut/1_mask.png")
    samples = MVTec(tmp_path).samples(tmp_path.name)
    assert masks(samples, tmp_path) == {"test/cut/1.png": "ground_truth/cut/1_mask.png"}


def test_btad(tmp_path: Path, make_images: Make) -> None:
    make_images(
        tmp_path, "01/train/ok/{1-4}.bmp", "01/test/ok/1.bmp", "01/test/ko/{1-2}.bmp", "01/ground_truth/ko/{1-2}.png"
    )
    samples = BTAD(tmp_path).samples("01")
    assert summary(samples) == {("train", 0, "good"): 4, ("test", 0, "good"): 1, ("test", 1, "ko"): 2}
    assert masks(samples, tmp_path)["01/test/ko/2.bmp"] == "01/ground_truth/ko/2.png"


def test_what_is_not_mvtec_is_said(tmp_path: Path, make_images: Make, refuses: Refuses) -> None:
    make_images(tmp_path, "pictures/a.png", "videos/b.png")
    refuses(MVTec(tmp_path).categories, "CATEGORY/train/good", "found: pictures, videos")
    refuses(MVTec(tmp_path / "nowhere").categories, "CATEGORY/train/good", "no such folder", "pictures, videos")
    (tmp_path / "empty").mkdir()
    refuses(MVTec(tmp_path / "empty").categories, "the folder is empty")
    make_images(tmp_path, "nut/train/fine/1.png")
    refuses(lambda: MVTec(tmp_path).samples("nut"), "normal training images in good/", "found: fine")
    make_images(tmp_path, "nut/train/good/1.png", "nut/train/cut/1.png")
    refuses(lambda: MVTec(tmp_path).samples("nut"), "train/cut", "folder")  # not to be trained on unnoticed
    refuses(lambda: MVTec(tmp_path).samples("nuts"), "no category 'nuts'", "did you mean nut?")


def test_masks_that_fit_no_image_are_not_passed_over(tmp_path: Path, make_images: Make, refuses: Refuses) -> None:
    make_images(tmp_path, "train/good/1.png", "test/cut/{1-3}.png", "ground_truth/cut/image{1-3}.png")
    refuses(lambda: MVTec(tmp_path).samples(tmp_path.name), "ground_truth/cut/image1.png", "_mask.png")


# --- VisA


def visa_rows(root: Path, rows: list[str], header: str = "object,split,label,image,mask") -> Path:
    (root / "split_csv").mkdir(parents=True, exist_ok=True)
    (root / "split_csv/1cls.csv").write_text("\n".join([header, *rows]) + "\n")
    return root


def test_visa(tmp_path: Path, make_images: Make, refuses: Refuses) -> None:
    make_images(
        tmp_path, "nut/Data/Images/Normal/{1-3}.png", "nut/Data/Images/Anomaly/1.png", "nut/Data/Masks/Anomaly/1.png"
    )
    rows = [f"nut,train,normal,nut/Data/Images/Normal/{i}.png," for i in (2, 1)]
    rows += ["nut,test,anomaly,nut/Data/Images/Anomaly/1.png,nut/Data/Masks/Anomaly/1.png"]
    reader = VisA(visa_rows(tmp_path, [*rows, "nut,test,normal,nut/Data/Images/Normal/3.png,"]))
    assert reader.categories() == ["nut"]
    samples = reader.samples("nut")
    assert summary(samples) == {("train", 0, "good"): 2, ("test", 0, "good"): 1, ("test", 1, "anomaly"): 1}
    assert [sample.image_path.name for sample in samples if sample.split == "train"] == ["1.png", "2.png"]
    assert [sample.mask_path for sample in samples if sample.label] == [tmp_path / "nut/Data/Masks/Anomaly/1.png"]
    refuses(lambda: reader.samples("nuts"), "did you mean nut?")


def test_a_table_that_was_written_on_windows_names_the_same_files(tmp_path: Path, make_images: Make) -> None:
    make_images(tmp_path, "nut/Data/Images/Normal/{0-1}.png")
    rows = [rf"nut,{split},normal,nut\Data\Images\Normal\{i}.png," for i, split in enumerate(("train", "test"))]
    names = [
        sample.image_path.relative_to(tmp_path).as_posix() for sample in VisA(visa_rows(tmp_path, rows)).samples("nut")
    ]
    assert sorted(names) == [f"nut/Data/Images/Normal/{i}.png" for i in range(2)]


def test_what_is_not_visa_is_said(tmp_path: Path, refuses: Refuses) -> None:
    refuses(VisA(tmp_path).categories, "split_csv/1cls.csv", "the folder is empty")
    refuses(
        VisA(visa_rows(tmp_path, [], header="path,label")).categories,
        "object,split,label,image,mask",
        "found: path,label",
    )
    reader = VisA(visa_rows(tmp_path, ["nut,train,normal,nut/1.png,", "nut,train,normal,nut/2.png,"]))
    refuses(lambda: reader.samples("nut"), "nut/1.png", "line 2")
    reader = VisA(visa_rows(tmp_path, ["nut,train,fine,nut/1.png,"]))
    refuses(lambda: reader.samples("nut"), "nut/1.png has label 'fine'")
    (tmp_path / "nut").mkdir()
    (tmp_path / "nut/1.png").touch()
    reader = VisA(visa_rows(tmp_path, ["nut,test,normal,nut/1.png,"]))
    refuses(lambda: reader.samples("nut"), "no normal training image")
    (tmp_path / "split_csv/1cls.csv").write_bytes("object,split,label,image,mask\n너트,train,normal,a,".encode("cp949"))
    refuses(VisA(tmp_path).categories, "UTF-8")


# --- real folders


@pytest.mark.parametrize(
    ("layout", "place", "category", "train", "normal", "anomalous"),
    [
        ("mvtec", "mvtec", "hazelnut", 28, 6, 17),
        ("mvtec", "mvtec/hazelnut", "hazelnut", 28, 6, 17),
        ("mvtec", "magtile", "magtile", 250, 100, 150),
        ("visa", "visa", "macaroni1", 200, 100, 100),
        ("folder", "mvtec", "hazelnut", 28, 6, 17),
        ("folder", "magtile", "magtile", 250, 100, 150),
        ("folder", "dtd", "dtd", 200, 0, 0),
    ],
)
def test_real_folders(
    real_data: Path, layout: str, place: str, category: str, train: int, normal: int, anomalous: int
) -> None:
    options = {"write_metadata": False} if layout == "folder" else {}
    reader = open_dataset(layout, str(real_data / place), **options)
    assert reader.categories() == [category]
    samples = reader.samples(category)
    assert Counter((s.split, s.label) for s in samples) == Counter(
        {("train", NORMAL): train, ("test", NORMAL): normal, ("test", ANOMALOUS): anomalous}
    )
    assert all(sample.mask_path.is_file() for sample in samples if sample.label)
    some = [next(s for s in samples if (s.split, s.label) == kind) for kind in {(s.split, s.label) for s in samples}]
    for sample in some:
        image, mask = reader.image(sample), reader.mask(sample)
        assert 0 <= image.min() < image.max() <= 1
        assert (mask is None) == (sample.label == NORMAL)
        if mask is not None:
            assert mask.shape == image.shape[1:]
            assert 0 < mask.float().mean() < 0.5


def test_listing_samples_needs_no_torch(tmp_path: Path, make_images: Make) -> None:
    make_images(tmp_path, "nut/train/good/1.png")
    code = (
        "import sys; from adcore.registry import open_dataset, list_datasets; list_datasets()\n"
        f"for name in ('mvtec', 'folder'): assert open_dataset(name, {str(tmp_path)!r}).samples('nut')\n"
        "import adcore.data.visa, adcore.data.btad; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
