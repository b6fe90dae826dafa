"""Health maps of machines by domain: one folder for each working condition, without masks."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from adcore.data.builtin import HDMAP_LAYOUT
from adcore.data.layout import check_category, folders_in, images_in, layout_error
from adcore.data.samples import ANOMALOUS, NORMAL, DatasetReader, Sample
from adcore.errors import DataError

PARTS = (("train", "good", NORMAL), ("test", "good", NORMAL), ("test", "fault", ANOMALOUS))  # split, folder, label


class HDMap(DatasetReader):
    """Health maps (float32 TIFF, typically 31 x 95, or 16-bit PNG) whose categories are the domains below `root`.

    Domains have any names. There are no masks, so anomalies count for image metrics only.
    """

    layout: ClassVar[str] = HDMAP_LAYOUT

    def categories(self) -> list[str]:
        """Names of the domain folders; DataError where there is none."""
        domains = [folder.name for folder in folders_in(self.root) if (folder / self._expected()).is_dir()]
        if not domains:
            raise layout_error(self.root, self.layout)
        return domains

    def _expected(self) -> str:
        """The folder that every domain has."""
        return "train" if self.needs_training else "test"

    def samples(self, category: str) -> list[Sample]:
        """All samples of one domain; DataError for no training image, or a folder that this layout does not have."""
        check_category(category, self.categories(), self.root)
        domain = self.root / category
        self._check_folders(domain)
        samples = [
            Sample(path, split, label, category, folder)
            for split, folder, label in PARTS
            for path in images_in(domain / split / folder)
        ]
        if self.needs_training and not any(sample.split == "train" for sample in samples):
            raise layout_error(domain / "train", "normal training images in good/")
        return samples

    def _check_folders(self, domain: Path) -> None:
        """Images in a folder that is not read would be left out silently."""
        read = {(split, folder) for split, folder, _ in PARTS}
        for split in folders_in(domain):
            for folder in folders_in(split):
                if (split.name, folder.name) not in read and images_in(folder):
                    raise DataError(f"{folder}: expected {self.layout}; rename the folder or move it away")
