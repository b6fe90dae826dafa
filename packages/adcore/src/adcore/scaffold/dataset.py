"""The files of a new dataset reader."""

PLUGIN = '''\
"""What @name@ registers: cards only, no torch, so that listing stays quick."""

from adcore.cards import DatasetCard
from adcore.hookspecs import hookimpl


@hookimpl
def adcore_register_datasets() -> list[DatasetCard]:
    """One card for each layout that users can name: --data @name@:ROOT."""
    return [
        DatasetCard(
            name="@name@",
            target="@module@.reader:@class@",
            title="@class@",
            layout="CATEGORY/*.png; names begin with train_, test_good_ or test_bad_",
        )
    ]
'''
READER = '''\
"""@class@: a reader of files whose names say what they are, to be replaced by your layout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from adcore.data.layout import check_category, folders_in, images_in, layout_error
from adcore.data.samples import DatasetReader, Sample
from pydantic import Field


class @class@(DatasetReader):
    """One folder for each category; the first letters of a file's name say its split and label."""

    layout = "CATEGORY/*.png; names begin with train_, test_good_ or test_bad_"

    def __init__(
        self,
        root: str | Path,
        bad: Annotated[str, Field(description="what names of anomalous images begin with")] = "test_bad_",
    ) -> None:
        super().__init__(root)
        self.bad = bad

    def categories(self) -> list[str]:
        """Names of the folders below `root`; DataError where there is none."""
        names = [folder.name for folder in folders_in(self.root) if images_in(folder)]
        if not names:
            raise layout_error(self.root, self.layout)
        return names

    def samples(self, category: str) -> list[Sample]:
        """All samples of one category, sorted by path."""
        check_category(category, self.categories(), self.root)
        return [
            Sample(
                path,
                split="train" if path.name.startswith("train_") else "test",
                label=int(path.name.startswith(self.bad)),
                category=category,
            )
            for path in images_in(self.root / category)
        ]
'''
CONFORMANCE = """\
from pathlib import Path

from adcore.data.image_io import write_image
from adcore.testing import DatasetConformance
from adcore.testing.tiny import tiny_images


class Test@class@(DatasetConformance):
    dataset = "@name@"

    def write_data(self, folder: Path) -> None:
        for name, image in zip(("train_0", "test_good_1", "test_bad_2"), tiny_images(3, (32, 32)), strict=True):
            write_image(folder / "part" / f"{name}.png", image)
"""
