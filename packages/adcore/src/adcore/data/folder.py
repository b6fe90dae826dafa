"""Any tree of images, made a dataset by its folder names or by a CSV file."""

from __future__ import annotations

import csv
import io
import logging
from pathlib import Path
from typing import Annotated, ClassVar

from adcore_runtime.csv_cells import cells, plain
from pydantic import Field

from adcore.data.builtin import FOLDER_LAYOUT
from adcore.data.folder_tree import ANOMALOUS_NAMES, KNOWN_NAMES, NORMAL_NAMES, scan_tree, tree_files
from adcore.data.layout import check_category, folders_in, images_in, layout_error, listed_file, read_csv
from adcore.data.samples import ANOMALOUS, NORMAL, DatasetReader, Sample
from adcore.errors import DataError
from adcore.files import write_text

METADATA = "adcore_metadata.csv"
COLUMNS = ("image_path", "split", "label", "defect", "mask_path")
SPLITS = ("train", "val", "test")
LABELS = {NORMAL: "normal", ANOMALOUS: "anomalous"}
LABEL_OF = dict.fromkeys(NORMAL_NAMES | {"0"}, NORMAL) | dict.fromkeys(ANOMALOUS_NAMES | {"1"}, ANOMALOUS)

log = logging.getLogger(__name__)


class Folder(DatasetReader):
    """A tree of normal and, if there are any, anomalous images (see `scan_tree` for the names that count).

    What the names were taken to mean is written to `adcore_metadata.csv` in the category's folder (`write_metadata`),
    with relative paths; from then on that file is what counts, to be looked at and corrected. `metadata` names another
    such file, which may have a column `category`. `test_ratio` is the share of normal images that go to test where
    the folders keep none for it.
    """

    layout: ClassVar[str] = FOLDER_LAYOUT

    def __init__(
        self,
        root: str | Path,
        metadata: Annotated[str | Path | None, Field(description="CSV file of images, splits and labels")] = None,
        write_metadata: Annotated[bool, Field(description="write adcore_metadata.csv where there is none")] = True,
        test_ratio: Annotated[float, Field(ge=0, lt=1, description="normal images that go to test")] = 0.2,
    ) -> None:
        super().__init__(root)
        self.metadata = Path(metadata) if metadata else None
        self.write_metadata, self.test_ratio = write_metadata, test_ratio

    def categories(self) -> list[str]:
        """The root's own name; or its folders', where these and not the root hold train/, good/, bad/ and the like."""
        if self.metadata:
            return sorted({row.get("category") or self._name() for _, row in _rows(self.metadata)})
        return sorted(self._folders())

    def samples(self, category: str) -> list[Sample]:
        """All samples of one category; DataError where there is none, nothing to train on, or a listed file is missing."""
        check_category(category, self.categories(), self.root)
        if self.metadata:
            rows = [row for row in _rows(self.metadata) if (row[1].get("category") or self._name()) == category]
            return self._checked(_samples_of(rows, self.metadata, self.root, category), category)
        folder = self._folders()[category]
        file = folder / METADATA
        if file.is_file():
            samples = self._checked(_samples_of(_rows(file), file, folder, category), category)
            _check_complete(samples, file)
            return samples
        samples = self._checked(scan_tree(folder, category, self.test_ratio), category)
        if self.write_metadata:
            try:
                write_text(file, _to_csv(samples, folder))
            except OSError as error:
                log.warning("%s cannot be written (%s); going on without it", file, error.strerror or error)
        return samples

    def _checked(self, samples: list[Sample], category: str) -> list[Sample]:
        if not samples:
            raise layout_error(self._folders()[category], self.layout)
        trained_on = any(sample.split == "train" and sample.label == NORMAL for sample in samples)
        if self.needs_training and not trained_on:
            raise DataError(f"{self.root}: no normal training image of '{category}'; put some in train/good or good")
        return sorted(samples, key=lambda sample: (SPLITS.index(sample.split), sample.image_path))

    def _name(self) -> str:
        return self.root.resolve().name

    def _folders(self) -> dict[str, Path]:
        inside = folders_in(self.root)
        if not inside and not images_in(self.root):
            raise layout_error(self.root, self.layout)
        if not images_in(self.root) and not _has_known_names(self.root):
            several = {folder.name: folder for folder in inside if _has_known_names(folder)}
            if several:
                return several
        return {self._name(): self.root}


def _has_known_names(folder: Path) -> bool:
    return any(child.name.lower() in KNOWN_NAMES for child in folders_in(folder))


def _rows(file: Path) -> list[tuple[int, dict[str, str]]]:
    rows = read_csv(file, COLUMNS[:3], COLUMNS)
    if not rows:
        raise DataError(f"{file}: lists no image; delete it to have the folder names read, or add rows")
    return [(line, {key: plain(value) for key, value in row.items()}) for line, row in rows]


def _samples_of(rows: list[tuple[int, dict[str, str]]], file: Path, root: Path, category: str) -> list[Sample]:
    samples: dict[Path, Sample] = {}
    for line, row in rows:
        split, label = row["split"].strip().lower(), LABEL_OF.get(row["label"].strip().lower())
        if split not in SPLITS or label is None:
            raise DataError(
                f"{file}, line {line}: split '{row['split'][:80]}', label '{row['label'][:80]}'; "
                f"expected {', '.join(SPLITS)} and {' or '.join(LABELS.values())}"
            )
        image = listed_file(root, row["image_path"], file, line)
        mask = listed_file(root, row["mask_path"], file, line) if row.get("mask_path") else None
        if image in samples:
            raise DataError(f"{file}, line {line}: {row['image_path']} is listed twice; remove one of the rows")
        defect = "good" if label == NORMAL else row.get("defect") or "anomaly"
        samples[image] = Sample(image, split, label, category, defect, mask if label == ANOMALOUS else None)
    return list(samples.values())


def _check_complete(samples: list[Sample], file: Path) -> None:
    """A list that was once written automatically must not hide images that came later."""
    listed = {path for sample in samples for path in (sample.image_path, sample.mask_path)}
    new = [image for image in tree_files(file.parent)[0] if file.parent / image not in listed]
    if new:
        raise DataError(
            f"{file}: does not list {len(new)} images that are there, such as {new[0]}; "
            "delete it to have it written anew, or add their rows"
        )


def _to_csv(samples: list[Sample], root: Path) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for sample in samples:
        mask = sample.mask_path.relative_to(root).as_posix() if sample.mask_path else ""
        row = (sample.image_path.relative_to(root).as_posix(), sample.split, LABELS[sample.label], sample.defect, mask)
        writer.writerow(cells(row))
    return text.getvalue()
