"""Maps and masks of scored images: in memory, and beyond a budget in a file, from which they are read one at a time."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adcore.errors import DataError
from adcore.memory import SHARE_OF_MEMORY, available_memory

IN_MEMORY = 1 << 30  # bytes of maps and masks that one scoring keeps in memory, where there is so much
ALIGNED = 64  # bytes: where a plane begins in the file


def budget() -> int:
    """Bytes that a scoring may keep in memory: IN_MEMORY, or less where less of the machine's memory is free."""
    return min(IN_MEMORY, int(SHARE_OF_MEMORY * available_memory()))


class PlaneFile:
    """A file without a name in `folder`, or in the system's folder for temporary files; it ends with the last plane of it.

    Nothing is left of it whatever ends the process. Raises DataError where there is no room.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder, self._end = Path(folder or tempfile.gettempdir()), 0
        try:
            self.file = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115 (closed with this object)
        except OSError as error:
            raise self._refused(error) from None
        weakref.finalize(self, self.file.close)

    def put(self, plane: np.ndarray) -> StoredPlane:
        """Write an array of any shape."""
        start = -(-self._end // ALIGNED) * ALIGNED
        try:
            self.file.seek(start)
            self.file.write(np.ascontiguousarray(plane).data)
            self.file.flush()  # a mapping does not see what Python still holds
        except OSError as error:
            raise self._refused(error) from None
        self._end = start + plane.nbytes
        return StoredPlane(self, start, plane.shape, plane.dtype)

    def _refused(self, error: OSError) -> DataError:
        size = f"beyond {budget() / 1e6:.0f} MB the maps and masks of the images go to a file there"
        return DataError(f"{self.folder}: {size}, which failed: {error}")


@dataclass(frozen=True)
class StoredPlane:
    """Where an array lies in a file."""

    file: PlaneFile
    start: int
    shape: tuple[int, ...]
    dtype: np.dtype

    def read(self) -> np.ndarray:
        """The array, of which no more is in memory than is looked at, until it is let go; changes stay with the caller."""
        return np.asarray(np.memmap(self.file.file, self.dtype, "c", self.start, self.shape))


class Plane:
    """A field of a dataclass that holds an array, None or a StoredPlane, which is read anew each time it is asked for."""

    def __init__(self, optional: bool = False) -> None:
        self.optional = optional

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type) -> np.ndarray | None:
        if instance is None:  # dataclasses ask for the field's default so
            if self.optional:
                return None
            raise AttributeError(self.name)
        value = vars(instance)[self.name]
        return value.read() if isinstance(value, StoredPlane) else value

    def __set__(self, instance: Any, value: np.ndarray | StoredPlane | None) -> None:
        vars(instance)[self.name] = value


class Keeper:
    """Decides for each image whether its planes stay in memory."""

    def __init__(self, folder: Path | None) -> None:
        self.folder, self.left = folder, budget()
        self.file: PlaneFile | None = None

    def keep(self, image: Any, names: Sequence[str]) -> None:
        """Move the fields `names` of `image`, each a Plane, into the file where the budget does not hold them."""
        found = {name: plane for name in names if (plane := getattr(image, name)) is not None}
        size = sum(plane.nbytes for plane in found.values())
        if size <= self.left:
            self.left -= size
            return
        if self.file is None:
            self.file = PlaneFile(self.folder)
        for name, plane in found.items():
            setattr(image, name, self.file.put(plane))


class EachPlane(Sequence):
    """The field `name` of each of `images`, read as it is asked for."""

    def __init__(self, images: Sequence[Any], name: str) -> None:
        self.images, self.name = images, name

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return EachPlane(self.images[index], self.name)
        return getattr(self.images[index], self.name)

    def at(self, indices: Sequence[int]) -> EachPlane:
        """Those of some images."""
        return EachPlane([self.images[index] for index in indices], self.name)


def planes(images: Sequence[Any], name: str) -> Sequence[np.ndarray | None]:
    """The field `name`, a Plane, of each of `images`: a list, or where any lies in a file an EachPlane."""
    if any(isinstance(vars(image)[name], StoredPlane) for image in images):
        return EachPlane(images, name)
    return [getattr(image, name) for image in images]
