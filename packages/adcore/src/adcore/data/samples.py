"""Samples, and the base class of dataset readers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:  # keeps torch out of dataset listings
    from torch import Tensor

    from adcore.data.roi import Rois

NORMAL, ANOMALOUS = 0, 1


@dataclass(frozen=True)
class Sample:
    """One image on disk. `mask_path` may be None for an anomalous image: it then counts for image metrics only."""

    image_path: Path
    split: str  # "train", "val" or "test"
    label: int  # 0 normal, 1 anomalous
    category: str
    defect: str = "good"
    mask_path: Path | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, compare=False)  # what else belongs to it: a prompt, a view


class DatasetReader:
    """Base class of dataset layouts: a reader lists samples and decodes files, and never resizes.

    A subclass implements `categories` and `samples`, and raises DataError (naming the layout that was expected and what
    was found) where the folder is not of its layout.
    """

    layout: ClassVar[str] = ""
    needs_training: bool = True  # False: a category without normal training images is no error
    channels: int = 3  # of decoded images; `ImageDataset` sets what the model takes
    rois: Rois | None = None  # where each image has a region of interest of its own

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def categories(self) -> list[str]:
        """Names of the categories below `root`, sorted."""
        raise NotImplementedError

    def samples(self, category: str) -> list[Sample]:
        """All samples of one category, sorted by path within each split."""
        raise NotImplementedError

    def image(self, sample: Sample) -> Tensor:
        """Decode the image: (`channels`, H, W) float32, in the file's own value range; DataError with the path."""
        from adcore.data.image_io import read_image

        return read_image(sample.image_path, self.channels)

    def size(self, sample: Sample) -> tuple[int, int]:
        """Height and width of the decoded image, from the file's header where that says it; DataError with the path."""
        from adcore.data.image_io import image_size

        plain = type(self).image is DatasetReader.image
        return (image_size(sample.image_path) if plain else None) or tuple(self.image(sample).shape[-2:])

    def mask(self, sample: Sample) -> Tensor | None:
        """Decode the mask: (H, W) bool; None where an anomalous sample has none."""
        from adcore.data.image_io import read_mask

        return read_mask(sample.mask_path) if sample.mask_path else None

    def extra(self, sample: Sample) -> Mapping[str, Any]:
        """What else a model gets with the image, as `Batch.extra` by these names; `sample.extra` unless overridden."""
        return sample.extra


def select(samples: Iterable[Sample], split: str, label: int | None = None) -> list[Sample]:
    """The samples of one split and, if given, of one label."""
    return [s for s in samples if s.split == split and (label is None or s.label == label)]
