"""Any tree of images: what folder names are taken to mean, and the CSV file that says it."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from adcore.data.folder import METADATA, Folder
from adcore.data.samples import Sample
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


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["{1-3}.png"], {("train", 0, "good"): 3}),
        (["day1/{1-3}.png", "day2/line 4/{1-2}.png"], {("train", 0, "good"): 5}),
        (["train/{1-3}.png"], {("train", 0, "good"): 3}),
        (
            ["Good/{1-10}.png", "BAD/{1-4}.png"],
            {("train", 0, "good"): 8, ("test", 0, "good"): 2, ("test", 1, "BAD"): 4},
        ),
        (["ok/{1-5}.jpg", "ko/{1-2}.jpg"], {("train", 0, "good"): 4, ("test", 0, "good"): 1, ("test", 1, "ko"): 2}),
        (
            ["normal/{1-5}.png", "fault/burr/{1-2}.png", "fault/dent/{1-3}.png"],
            {("train", 0, "good"): 4, ("test", 0, "good"): 1, ("test", 1, "burr"): 2, ("test", 1, "dent"): 3},
        ),
        (
            ["good/{1-5}.png", "burr/{1-2}.png", "dent/{1-3}.png"],
            {("train", 0, "good"): 4, ("test", 0, "good"): 1, ("test", 1, "burr"): 2, ("test", 1, "dent"): 3},
        ),
        (
            ["train/good/{1-5}.png", "test/good/1.png", "test/dent/{1-2}.png", "val/good/1.png"],
            {("train", 0, "good"): 5, ("val", 0, "good"): 1, ("test", 0, "good"): 1, ("test", 1, "dent"): 2},
        ),
        (
            ["training/{1-5}.png", "testing/normal/1.png", "testing/anomaly/1.png"],
            {("train", 0, "good"): 5, ("test", 0, "good"): 1, ("test", 1, "anomaly"): 1},
        ),
        (
            ["train/good/{1-5}.png", "train/dent/{1-2}.png", "test/good/1.png", "test/dent/3.png"],
            {("train", 0, "good"): 5, ("train", 1, "dent"): 2, ("test", 0, "good"): 1, ("test", 1, "dent"): 1},
        ),
        (
            ["good/train/{1-5}.png", "good/test/1.png", "bad/test/1.png"],
            {("train", 0, "good"): 5, ("test", 0, "good"): 1, ("test", 1, "bad"): 1},
        ),
    ],
)
def test_folder_names_are_understood(tmp_path: Path, names: list[str], expected: dict, make_images: Make) -> None:
    make_images(tmp_path / "part", *names)
    reader = Folder(tmp_path / "part")
    assert reader.categories() == ["part"]
    assert summary(reader.samples("part")) == expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["good/1.png", "bad/1.png", "mask/1.png"], {"bad/1.png": "mask/1.png"}),
        (["good/1.png", "bad/1.jpg", "masks/bad/1_mask.png"], {"bad/1.jpg": "masks/bad/1_mask.png"}),
        (["good/1.png", "bad/1.png", "bad/1_mask.png"], {"bad/1.png": "bad/1_mask.png"}),
        (["good/1.png", "bad/1.png", "bad/mask/1.png"], {"bad/1.png": "bad/mask/1.png"}),
        (
            [
                "train/good/1.png",
                "test/dent/1.png",
                "test/burr/1.png",
                "ground_truth/dent/1.png",
                "ground_truth/burr/1_gt.png",
            ],
            {"test/dent/1.png": "ground_truth/dent/1.png", "test/burr/1.png": "ground_truth/burr/1_gt.png"},
        ),
        (
            ["good/1.png", "bad/dent/1.png", "bad/burr/2.png", "ground_truth/bad/dent/1.png"],
            {"bad/dent/1.png": "ground_truth/bad/dent/1.png"},
        ),
        (["good/1.png", "good/1_mask.png", "bad/2.png", "bad/2_mask.png"], {"bad/2.png": "bad/2_mask.png"}),
    ],
)
def test_masks_find_their_images(tmp_path: Path, names: list[str], expected: dict[str, str], make_images: Make) -> None:
    reader = Folder(make_images(tmp_path / "part", *names))
    assert masks(reader.samples("part"), tmp_path / "part") == expected


def test_doubtful_names_are_refused(tmp_path: Path, make_images: Make, refuses: Refuses) -> None:
    make_images(tmp_path / "a", "train/1.png", "test/2.png")
    refuses(lambda: Folder(tmp_path / "a").samples("a"), "test/2.png", "test/good", "metadata=")
    make_images(tmp_path / "b", "good/1.png", "bad/1.png", "defect/1.png", "mask/1.png")
    refuses(lambda: Folder(tmp_path / "b").samples("b"), "mask/1.png", "several images")
    make_images(tmp_path / "c", "good/1.png", "bad/1.png", "mask/7.png")
    refuses(lambda: Folder(tmp_path / "c").samples("c"), "mask/7.png", "none of the 1 masks")
    make_images(tmp_path / "f", "good/1.png", "bad/1.png", "unsorted/1.png")
    refuses(lambda: Folder(tmp_path / "f").samples("f"), "f/unsorted", "metadata=")
    make_images(tmp_path / "d", "bad/1.png")
    refuses(lambda: Folder(tmp_path / "d").samples("d"), "no normal training image")
    (tmp_path / "e/x").mkdir(parents=True)
    refuses(lambda: Folder(tmp_path / "e").samples("e"), "good/ and bad/", "found: x")
    refuses(Folder(tmp_path / "none").categories, "no such folder")
    assert not list(tmp_path.rglob(METADATA)), "nothing may be left behind by what failed"


def test_several_categories_below_one_root(tmp_path: Path, make_images: Make, refuses: Refuses) -> None:
    make_images(tmp_path, "nut/ok/{1-3}.png", "nut/ng/1.png", "lid/ok/{1-2}.png")
    reader = Folder(tmp_path)
    assert reader.categories() == ["lid", "nut"]
    assert len(reader.samples("lid")) == 2
    assert (tmp_path / "nut" / METADATA).is_file() is False
    refuses(lambda: reader.samples("lit"), "did you mean lid?")


def test_metadata_is_written_once_and_then_counts(tmp_path: Path, make_images: Make, refuses: Refuses) -> None:
    root = make_images(tmp_path / "part", "good/{1-10}.png", "bad/{1-2}.png", "mask/1.png")
    first = Folder(root).samples("part")
    with open(root / METADATA, newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["image_path", "split", "label", "defect", "mask_path"]
    assert len(rows) == 1 + 12
    assert ["bad/1.png", "test", "anomalous", "bad", "mask/1.png"] in rows
    assert Folder(root).samples("part") == first
    text = (root / METADATA).read_text()
    (root / METADATA).write_text(text.replace("bad/2.png,test,anomalous,bad", "bad/2.png,test,normal,good"))
    assert summary(Folder(root).samples("part"))["test", 0, "good"] == 3, "a correction by hand holds"
    make_images(root, "good/11.png")
    refuses(lambda: Folder(root).samples("part"), METADATA, "good/11.png", "delete it")
    (root / METADATA).unlink()
    assert len(Folder(root).samples("part")) == 13


def test_images_that_come_later_do_not_reshuffle_train_and_test(tmp_path: Path, make_images: Make) -> None:
    root = make_images(tmp_path / "part", "good/{1-50}.png", "bad/1.png")
    before = {
        s.image_path for s in Folder(root, write_metadata=False).samples("part") if s.split == "test" and not s.label
    }
    make_images(root, "good/{51-60}.png")
    after = {
        s.image_path for s in Folder(root, write_metadata=False).samples("part") if s.split == "test" and not s.label
    }
    assert len(before) == 10
    assert len(after) == 12
    assert len(before & after) >= 8  # a fresh random choice would keep about 2


def test_a_root_that_cannot_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, make_images: Make
) -> None:
    root = make_images(tmp_path / "part", "good/{1-3}.png")

    def refuse(path: Path, text: str) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("adcore.data.folder.write_text", refuse)
    assert len(Folder(root).samples("part")) == 3
    assert "cannot be written (Read-only file system)" in caplog.text
    caplog.clear()
    assert len(Folder(root, write_metadata=False).samples("part")) == 3
    assert not caplog.text


def test_given_metadata(tmp_path: Path, make_images: Make) -> None:
    root = make_images(tmp_path / "part", "a/{1-4}.png", "m/mask.png")
    table = tmp_path / "my.csv"
    table.write_text(
        "image_path,split,label,defect,mask_path,category\n"
        "a/1.png,train,normal,,,left\na/2.png,test,0,,,left\na/3.png,test,anomalous,dent,m/mask.png,left\na/4.png,train,ok,,,right\n"
    )
    reader = open_dataset("folder", str(root), metadata=str(table))
    assert reader.categories() == ["left", "right"]
    samples = reader.samples("left")
    assert summary(samples) == {("train", 0, "good"): 1, ("test", 0, "good"): 1, ("test", 1, "dent"): 1}
    assert masks(samples, root) == {"a/3.png": "m/mask.png"}
    assert not (root / METADATA).exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,label\nx,1\n", ["image_path,split,label,defect,mask_path", "found: path,label"]),
        ("image_path,split,label\na/9.png,train,normal\n", ["a/9.png", "line 2"]),
        ("image_path,split,label\na/1.png,train,fine\n", ["line 2", "'fine'", "normal or anomalous"]),
        ("image_path,split,label\na/1.png,training,normal\n", ["line 2", "'training'", "train, val, test"]),
        ("image_path,split,label\na/1.png,train\n", ["line 2", "label ''"]),
        ("image_path,split,label\na/1.png,train,normal\na/1.png,test,normal\n", ["line 3", "twice"]),
        ("image_path,split,label\na/1.png,test,normal\n", ["no normal training image"]),
        ("image_path,split,label\n", ["lists no image"]),
    ],
)
def test_bad_metadata(tmp_path: Path, text: str, words: list[str], make_images: Make, refuses: Refuses) -> None:
    root = make_images(tmp_path / "part", "a/{1-4}.png")
    (tmp_path / "my.csv").write_text(text)
    refuses(lambda: Folder(root, metadata=tmp_path / "my.csv").samples("part"), *words)


def test_missing_metadata_file(tmp_path: Path, make_images: Make, refuses: Refuses) -> None:
    make_images(tmp_path / "part", "a/1.png")
    refuses(Folder(tmp_path / "part", metadata=tmp_path / "my.csv").categories, "my.csv", "found: part")


def test_links_that_form_a_circle(tmp_path: Path, make_images: Make) -> None:
    root = make_images(tmp_path / "part", "good/{1-3}.png")
    (root / "good/again").symlink_to(root, target_is_directory=True)
    assert len(Folder(root, write_metadata=False).samples("part")) == 3
