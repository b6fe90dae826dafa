"""Lists a benchmark data set as plain files, and links them so that the peer's `Folder` reads them in a fixed order."""

import csv
from dataclasses import dataclass
from pathlib import Path

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}


@dataclass(frozen=True)
class Item:
    """One image, whether it is anomalous, and its mask file where it has one."""

    image: Path
    anomalous: bool = False
    mask: Path | None = None


def list_images(folder: Path) -> list[Path]:
    """The image files directly in `folder`, sorted by name."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


def read_mvtec(root: Path, category: str) -> tuple[list[Item], list[Item]]:
    """Train and test items of an MVTec AD tree; `category` "." takes `root` itself as the category."""
    base = root / category
    train = [Item(path) for path in list_images(base / "train" / "good")]
    test = [Item(path) for path in list_images(base / "test" / "good")]
    for defect in sorted(p.name for p in (base / "test").iterdir() if p.is_dir() and p.name != "good"):
        masks = {path.stem.removesuffix("_mask"): path for path in list_images(base / "ground_truth" / defect)}
        test += [Item(path, True, masks[path.stem]) for path in list_images(base / "test" / defect)]
    return train, test


def read_visa(root: Path, category: str) -> tuple[list[Item], list[Item]]:
    """Train and test items of a VisA tree, by its `split_csv/1cls.csv`."""
    train, test = [], []
    with (root / "split_csv" / "1cls.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["object"] != category:
                continue
            mask = root / row["mask"] if row["mask"] else None
            item = Item(root / row["image"], row["label"] != "normal", mask)
            (train if row["split"] == "train" else test).append(item)
    test.sort(key=lambda item: (item.anomalous, item.image))
    return train, test


READERS = {"mvtec": read_mvtec, "visa": read_visa}


def read_dataset(root: Path, spec: str) -> tuple[list[Item], list[Item]]:
    """Train and test items of `spec`, written LAYOUT:CATEGORY; normal test images come first."""
    layout, category = spec.split(":", 1)
    return READERS[layout](root, category)


def link_tree(train: list[Item], test: list[Item], target: Path) -> None:
    """Symbolic links under `target` in train/good, test/good, test/bad and ground_truth/bad, numbered in list order.

    The peer pairs images and masks by sorted name and may write into a data folder, hence links under plain numbers.
    """
    for folder in ("train/good", "test/good", "test/bad", "ground_truth/bad"):
        (target / folder).mkdir(parents=True)
    for number, item in enumerate(train):
        (target / f"train/good/{number:05d}{item.image.suffix.lower()}").symlink_to(item.image.resolve())
    for number, item in enumerate(test):
        folder = "bad" if item.anomalous else "good"
        (target / f"test/{folder}/{number:05d}{item.image.suffix.lower()}").symlink_to(item.image.resolve())
        if item.mask is not None:
            mask_link = target / f"ground_truth/{folder}/{number:05d}{item.mask.suffix.lower()}"
            mask_link.symlink_to(item.mask.resolve())
