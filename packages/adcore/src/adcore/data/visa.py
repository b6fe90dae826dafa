"""The VisA layout: every image is a row of one CSV file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from adcore.data.builtin import VISA_LAYOUT
from adcore.data.layout import check_category, layout_error, listed_file, read_csv
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
        self._rows: list[tuple[int, dict[str, str]]] | None = None

    def categories(self) -> list[str]:
        """Names in the CSV's column `object`; DataError where the file is missing or has other columns."""
        return sorted({row["object"] for _, row in self._read()})

    def samples(self, category: str) -> list[Sample]:
        """All samples of one category; DataError where a listed file is missing or nothing normal is left to train on."""
        check_category(category, self.categories(), self.root)
        samples: dict[Path, Sample] = {}
        for line, row in self._read():
            if row["object"] == category:
                sample = self._sample(row, line)
                if sample.image_path in samples:
                    raise DataError(f"{self.csv}, line {line}: {row['image']} is listed twice; remove one of the rows")
                samples[sample.image_path] = sample
        trained_on = any(sample.split == "train" and sample.label == NORMAL for sample in samples.values())
        if self.needs_training and not trained_on:
            raise DataError(
                f"{self.csv}: no normal training image of '{category}'; its rows need split=train, label=normal"
            )
        return sorted(samples.values(), key=lambda sample: (sample.split, sample.image_path))

    def _read(self) -> list[tuple[int, dict[str, str]]]:
        if self._rows is None:
            if not self.csv.is_file():
                raise layout_error(self.root, self.layout)
            self._rows = read_csv(self.csv, COLUMNS, COLUMNS)
        return self._rows

    def _sample(self, row: dict[str, str], line: int) -> Sample:
        if row["label"] not in ("normal", "anomaly") or row["split"] not in ("train", "val", "test"):
            raise DataError(
                f"{self.csv}, line {line}: {row['image'][:80]} has label '{row['label'][:80]}' and split "
                f"'{row['split'][:80]}'; expected normal or anomaly, and train, val or test"
            )
        normal = row["label"] == "normal"
        image = listed_file(self.root, row["image"], self.csv, line)
        mask = listed_file(self.root, row["mask"], self.csv, line) if row["mask"] and not normal else None
        label, defect = (NORMAL, "good") if normal else (ANOMALOUS, "anomaly")
        return Sample(image, row["split"], label, row["object"], defect, mask)
