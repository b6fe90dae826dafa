"""The MVTec AD layout, which many datasets share: train/good, test/<defect>, ground_truth/<defect>."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from adcore.data.builtin import MVTEC_LAYOUT
from adcore.data.layout import check_category, folders_in, images_in, layout_error, masks_by_stem
from adcore.data.samples import ANOMALOUS, NORMAL, DatasetReader, Sample
from adcore.errors import DataError

SPLITS = {"train": "train", "val": "val", "validation": "val", "test": "test"}  # folder -> split


class MVTec(DatasetReader):
    """MVTec AD (Bergmann et al. 2019) and everything laid out like it.

    `root` holds one folder per category, or is itself one category, which then goes by the folder's name. A mask is
    called as its image, with or without `_mask`, and may have another suffix.
    """

    layout: ClassVar[str] = MVTEC_LAYOUT
    normal: ClassVar[str] = "good"  # the folder of normal images

    def categories(self) -> list[str]:
        """Names of the category folders; DataError where there is none."""
        return sorted(self._folders())

    def samples(self, category: str) -> list[Sample]:
        """All samples of one category; DataError where there is no normal training image or no mask fits."""
        folders = self._folders()
        check_category(category, sorted(folders), self.root)
        folder, samples = folders[category], []
        if self.needs_training and not images_in(folder / "train" / self.normal):
            raise layout_error(folder / "train", f"normal training images in {self.normal}/")
        for name, split in SPLITS.items():
            for defect in folders_in(folder / name):
                if split != "test" and defect.name != self.normal and images_in(defect):
                    raise DataError(
                        f"{defect}: this layout has normal images only in {name}/{self.normal}; move the folder to test, "
                        "or read the dataset as 'folder', which takes labelled anomalies for training"
                    )
                samples += self._samples(category, folder, defect, split)
        return samples

    def _folders(self) -> dict[str, Path]:
        expected = "train" if self.needs_training else "test"
        if (self.root / expected).is_dir():
            return {self.root.resolve().name: self.root}
        folders = {folder.name: folder for folder in folders_in(self.root) if (folder / expected).is_dir()}
        if not folders:
            raise layout_error(self.root, self.layout)
        return folders

    def _samples(self, category: str, folder: Path, defect: Path, split: str) -> list[Sample]:
        images = images_in(defect)
        if defect.name == self.normal:
            return [Sample(image, split, NORMAL, category) for image in images]
        masks = masks_by_stem(folder / "ground_truth" / defect.name)
        if masks and not any(image.stem in masks for image in images):
            first = next(iter(masks.values()))
            raise DataError(
                f"{first}: no mask in its folder has the name of an image in {defect}; rename NAME.png to NAME_mask.png"
            )
        return [Sample(image, split, ANOMALOUS, category, defect.name, masks.get(image.stem)) for image in images]
