"""The VisA layout: every image is a row of one CSV file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from adcore.data.builtin import VISA_LAYOUT
from adcore.data.layout import check_category, layout_error, read_csv
from adcore.data.samples import ANOMALOUS, NORMAL, DatasetReader, Sample
from adcore.errors import DataError

COLUMNS = ("object", "split", "label", "image", "mask")


class VisA(DatasetReader):
    """VisA (Zou et al. 2022). `split_csv` names another protocol's file, such as split_csv/2cls_fewshot.csv."""

    layout: ClassVar[str] = VISA_LAYOUT

    def __init__(
        self,
        root: str | Path,
        split_csv: Annotated[str, Field(description="CSV file of another protocol, below root")] = "split_csv/1cls.csv",
    ) -> None:
        super().__init__(root)
        self.csv = self.root / split_csv
        self._rows: list[dict[str, str]] | None = None

    def categories(self) -> list[str]:
        """Names in the CSV's column `object`; DataError where the file is missing or has other columns."""
        return sorted({row["object"] for row in self._read()})

    def samples(self, category: str) -> list[Sample]:
        """All samples of one category; DataError where a listed file is missing or nothing normal is left to train on."""
        check_category(category, self.categories(), self.root)
        samples = sorted(
            (self._sample(row) for row in self._read() if row["object"] == category),
            key=lambda sample: (sample.split, sample.image_path),
        )
        if not any(sample.split == "train" and sample.label == NORMAL for sample in samples):
            raise DataError(
                f"{self.csv}: no normal training image of '{category}'; its rows need split=train, label=normal"
            )
        files = [path for sample in samples for path in (sample.image_path, sample.mask_path) if path]
        missing = [path for path in files if not path.is_file()]
        if missing:
            raise DataError(
                f"{missing[0]}: listed in {self.csv} but missing, as are {len(missing) - 1} more; copy the images"
            )
        return samples

    def _read(self) -> list[dict[str, str]]:
        if self._rows is None:
            if not self.csv.is_file():
                raise layout_error(self.root, self.layout)
            self._rows = read_csv(self.csv, COLUMNS, COLUMNS)
        return self._rows

    def _sample(self, row: dict[str, str]) -> Sample:
        if row["label"] not in ("normal", "anomaly") or row["split"] not in ("train", "val", "test"):
            raise DataError(
                f"{self.csv}: {row['image']} has label '{row['label']}' and split '{row['split']}'; "
                "expected normal or anomaly, and train, val or test"
            )
        normal = row["label"] == "normal"
        mask = self.root / row["mask"] if row["mask"] and not normal else None
        label, defect = (NORMAL, "good") if normal else (ANOMALOUS, "anomaly")
        return Sample(self.root / row["image"], row["split"], label, row["object"], defect, mask)
