"""Regions of interest as users give them: one mask, a folder of masks, or shapes in a JSON file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from adcore_runtime.listing import is_image
from adcore_runtime.roi import Roi

from adcore.data.image_io import read_mask
from adcore.data.roi_shapes import Drawing, read_drawings
from adcore.errors import ConfigError, DataError
from adcore.preprocess import EACH, Preprocess


@dataclass(frozen=True)
class Rois:
    """A region of interest for each image, found by the image's path or name; it is read when it is asked for."""

    source: Path
    entries: Mapping[str, Path | Drawing] = field(repr=False)  # by path without suffix, relative to `source`
    common: Roi | None = None  # where one file was given: that of all images

    def of(self, image: Path, root: Path, height: int, width: int) -> Roi:
        """The region of an image of `height` x `width` below `root`; DataError where there is none of its size."""
        entry = self._entry(image, root)
        roi = self.common or (read_roi(entry) if isinstance(entry, Path) else entry.roi())
        if roi.size != (height, width):
            name = entry if isinstance(entry, Path) else self.source
            raise DataError(
                f"{name}: a region of interest of {roi.size[1]}x{roi.size[0]} px for {image} of {width}x{height} px; make "
                "it the same size"
            )
        return roi

    def _entry(self, image: Path, root: Path) -> Path | Drawing | None:
        """By as much of the end of the image's path as is known here, else by the name alone where there is one of it."""
        if self.common:
            return None
        relative = image.relative_to(root) if image.is_relative_to(root) else Path(image.name)
        parts = relative.with_suffix("").parts
        for start in range(len(parts)):
            if found := self.entries.get("/".join(parts[start:])):
                return found
        named = [entry for key, entry in self.entries.items() if PurePosixPath(key).name == parts[-1]]
        if len(named) != 1:
            why = "several masks of its name" if named else "no region of interest for it"
            raise DataError(
                f"{image}: {why} in {self.source}; call the mask like the image, in a folder of the same name"
            )
        return named[0]


def open_rois(path: str | Path) -> Roi | Rois:
    """What `--roi` names: one region for all images, from a mask or a JSON file of one image, or one for each.

    DataError for a file that cannot be read, a mask or shape without a pixel, and shapes outside of their image.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if is_image(file.name) and file.is_file())
        entries = {file.relative_to(path).with_suffix("").as_posix(): file for file in files}
        if not files:
            raise DataError(f"{path} holds no mask; give a folder of images, one mask, or a JSON file")
        if len(entries) < len(files):
            twice = Counter(file.with_suffix("") for file in files).most_common(1)[0][0]
            raise DataError(f"{path} has several masks {twice.name} that differ in their suffix; leave one")
        return Rois(path, entries)
    if path.suffix.lower() != ".json":
        return read_roi(path)
    drawings = read_drawings(path)
    if len(drawings) == 1:
        return drawings[0].roi()
    return Rois(path, {PurePosixPath(one.image).with_suffix("").as_posix(): one for one in drawings})


def read_roi(path: Path) -> Roi:
    """The region of a mask file: every pixel that is not 0, or of a lossy file that is at least half of the range."""
    mask = read_mask(path, nonzero=True).numpy()
    if not mask.any():
        raise DataError(f"{path}: the mask is empty; what is not 0 is the region of interest")
    return Roi.of(mask)


def with_roi(preprocess: Preprocess, path: Path | None) -> tuple[Preprocess, Rois | None]:
    """The preprocessing of a model that is to be trained with `--roi`, and where the images' own regions come from."""
    if path is None:
        return preprocess, None
    found = open_rois(path)
    if isinstance(found, Rois):
        return preprocess.of(EACH), found
    preprocess = preprocess.of(found)
    preprocess.seen(*found.size)  # does a crop leave anything of it
    return preprocess, None


def rois_for(preprocess: Preprocess, path: Path | None) -> Rois | None:
    """Where the images of a trained model get their own regions from; None where they need none.

    ConfigError unless `path` is given for just such a model.
    """
    if preprocess.roi == EACH:
        if path is None:
            raise ConfigError("this model was trained with a region of interest for each image; give them with --roi")
        found = open_rois(path)
        return found if isinstance(found, Rois) else Rois(path, {}, found)
    if path is not None:
        has = "has its own region of interest" if preprocess.roi else "was trained without a region of interest"
        raise ConfigError(f"this model {has}; leave --roi out, or train it again with --roi {path}")
    return None
