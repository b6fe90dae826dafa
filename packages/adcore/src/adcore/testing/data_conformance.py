"""The checks every dataset reader must pass. A plugin's whole test:

from adcore.testing import DatasetConformance

class TestMyDataset(DatasetConformance):
    dataset = "my-dataset"

    def write_data(self, folder):
        ...  # a few small images in the layout
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from adcore.cards import DatasetCard
from adcore.config import describe_fields, option_fields
from adcore.data.samples import ANOMALOUS, NORMAL, DatasetReader, Sample
from adcore.errors import ConfigError
from adcore.plugins import Origin, load_plugins
from adcore.registry import check_data_options, dataset_card, open_dataset, reader_class
from adcore.testing.base import Conformance, check_settings

SPLITS = ("train", "val", "test")


class DatasetConformance(Conformance):
    """Inherit, name the dataset, and give data: a folder as `root`, or a method `write_data`; else checks are skipped."""

    dataset: ClassVar[str] = ""
    root: ClassVar[str | Path | None] = None
    options: ClassVar[dict[str, Any]] = {}  # of the reader

    def write_data(self, folder: Path) -> Path | None:
        """Write a few small images in the dataset's layout into `folder`; the root, or None for `folder`."""
        pytest.skip("there is no data: set `root` or write_data (check-plugin: --data NAME:ROOT)")

    def origin(self) -> Origin:
        """The plugin that registered the dataset."""
        return load_plugins().cards[DatasetCard][dataset_card(self.dataset).name][1]

    @pytest.fixture(scope="class")
    @classmethod
    def reader(cls, tmp_path_factory: pytest.TempPathFactory) -> DatasetReader:
        """A reader of the data."""
        folder = tmp_path_factory.mktemp("data")
        root = cls.root or cls().write_data(folder) or folder
        return open_dataset(cls.dataset, str(root), **cls.options)

    @pytest.fixture(scope="class")
    @classmethod
    def samples(cls, reader: DatasetReader) -> list[Sample]:
        """The samples of all categories."""
        return [sample for category in reader.categories() for sample in reader.samples(category)]

    def test_card_is_complete(self) -> None:
        """Users read the card in `adcore list-datasets`.

        Fails on an empty title or layout, or a target that is no DatasetReader. Fix: fill the field in plugin.py.
        """
        card = dataset_card(self.dataset)
        for field in ("title", "layout"):
            assert getattr(card, field).strip(), f"the card's {field} is empty"
        assert issubclass(reader_class(self.dataset), DatasetReader), f"{card.target} is no DatasetReader"

    def test_options_are_checked(self) -> None:
        """Options are shown by `adcore info` and checked against their annotations.

        Fails on **kwargs or *args, and on an option without a type, a default or a description. Fix: write it as
        `name: Annotated[int, Field(ge=1, description="...")] = 3`, after `root`.
        """
        kind = reader_class(self.dataset)
        parameters = inspect.signature(kind.__init__).parameters.values()
        loose = [str(p) for p in parameters if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
        assert not loose, f"__init__ takes {', '.join(loose)}, which swallows misspelt options"
        fields = option_fields(kind)
        check_settings(fields, {name: meaning for name, _, _, meaning in describe_fields(fields)})
        with pytest.raises(ConfigError, match="no_such_option"):
            check_data_options(self.dataset, {"no_such_option": 1})

    def test_categories_are_sorted(self, reader: DatasetReader) -> None:
        """`--category` and `all` go by these names.

        Fails on no category, on names that are no text, out of order or given twice. Fix: return sorted(set(names)).
        """
        names = reader.categories()
        assert names, "there is no category"
        assert all(isinstance(name, str) and name for name in names), f"categories must be text, not {names}"
        assert list(names) == sorted(set(names)), f"categories are not sorted, or not unique: {names}"

    def test_samples_are_valid(self, reader: DatasetReader) -> None:
        """Training and evaluation rely on splits, labels and a fixed order.

        Fails on another split or label than there are, a file that is missing or listed twice, an order that is not by path
        within each split, no normal image for training, or another answer to the same question. Fix: sort by
        sample.image_path, and give split "train", "val" or "test", label 0 or 1.
        """
        for category in reader.categories():
            samples = reader.samples(category)
            assert samples == reader.samples(category), f"the samples of '{category}' differ from call to call"
            for sample in samples:
                assert isinstance(sample, Sample), f"samples must be adcore.data.samples.Sample, not {type(sample)}"
                assert sample.split in SPLITS, (
                    f"{sample.image_path}: split '{sample.split}' is none of {', '.join(SPLITS)}"
                )
                assert sample.label in (NORMAL, ANOMALOUS), f"{sample.image_path}: label {sample.label!r} is not 0 or 1"
                assert sample.category == category, (
                    f"{sample.image_path}: category '{sample.category}', not '{category}'"
                )
                for path in filter(None, (sample.image_path, sample.mask_path)):
                    assert Path(path).is_file(), f"{path} is listed, and there is no such file"
            for split in SPLITS:
                paths = [sample.image_path for sample in samples if sample.split == split]
                assert paths == sorted(paths), f"the samples of split '{split}' are not sorted by path"
            paths = [sample.image_path for sample in samples]
            assert len(paths) == len(set(paths)), f"'{category}' lists a file twice"

    def test_images_are_decoded(self, reader: DatasetReader, samples: list[Sample]) -> None:
        """Every model takes (3, H, W) float32.

        Fails when the first image of a split is of another shape or type, or holds NaN or infinity. Fix: decode with
        adcore.data.image_io.read_image, or repeat gray three times and convert to float32; do not resize.
        """
        for sample in {sample.split: sample for sample in reversed(samples)}.values():
            image = reader.image(sample)
            shape = tuple(image.shape)
            assert (len(shape), shape[0]) == (3, reader.channels), f"{sample.image_path}: shape {shape}, not (3, H, W)"
            assert image.dtype == torch.float32, f"{sample.image_path}: {image.dtype}, not float32"
            assert image.isfinite().all(), f"{sample.image_path}: NaN or infinity"

    def test_masks_fit_their_images(self, reader: DatasetReader, samples: list[Sample]) -> None:
        """Pixel metrics compare masks with maps.

        Fails when a mask is not bool, or not of its image's size. Fix: read it with adcore.data.image_io.read_mask.
        """
        for sample in [sample for sample in samples if sample.label == ANOMALOUS][:3]:
            mask = reader.mask(sample)
            if mask is not None:
                size = tuple(reader.image(sample).shape[1:])
                assert mask.dtype == torch.bool, f"{sample.image_path}: the mask is {mask.dtype}, not bool"
                assert tuple(mask.shape) == size, f"{sample.image_path}: mask {tuple(mask.shape)} for an image {size}"
