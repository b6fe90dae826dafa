"""The folder that `predict --out` writes: all files appear at the end, or none."""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from adcore_runtime import region_table
from adcore_runtime.csv_cells import Writer, continued, plain, whole_rows
from adcore_runtime.errors import DataError
from adcore_runtime.files import leftovers, remove_leftovers, removed_on_failure
from adcore_runtime.geometry import Frame, full_size
from adcore_runtime.listing import is_image
from adcore_runtime.overlay import colour_range, write_overlay
from adcore_runtime.region_table import RegionTable
from adcore_runtime.rows import PLAIN, RowOptions

TABLE, MAPS, OVERLAYS = "predictions.csv", "maps", "overlays"
ORIGIN = "origin.txt"  # in a folder that is not finished: the model and the source that its rows are of
FILES = ("map", "overlay")  # columns with the name of a file
COLUMNS = ("path", "score", "normalized_score", "predicted", *FILES)  # and `verdict`, where there is a review band
LONGEST = 180  # bytes of a name; most file systems end at 255, some that encrypt at 143 characters


class Results:
    """Writes rows, maps, overlays and regions into `folder`."""

    def __init__(
        self, folder: Path, root: Path, normal_maps: tuple[float, float] | None, options: RowOptions = PLAIN
    ) -> None:
        self.folder, self.root, self.normal_maps = folder, root, normal_maps
        rows = [row for row in whole_rows(folder / TABLE) if all(_is_written(folder, row[kind]) for kind in FILES)]
        self.done = {plain(row["path"]) for row in rows}  # images whose rows a killed process has written
        self.count = len(rows)
        self._full_size = options.full_size
        self._regions = RegionTable(folder, self.done, options.crops) if options.regions else None
        columns = [*COLUMNS[:4], *(["verdict"] if options.band else []), *FILES]
        self._file = continued(folder / TABLE, columns, rows)
        self._writer = Writer(self._file, columns, header=False)

    def add(
        self,
        path: Path,
        anomaly_map: np.ndarray | None,
        photo: np.ndarray | None,
        row: dict[str, Any],
        frame: Frame,
    ) -> dict[str, Any]:
        """Write one image's map, overlay, regions and row; the row with the names of the files, relative to the folder.

        `anomaly_map`: (h, w) raw, or None; `photo`: (H, W) uint8; `frame`: where the map lies in it.
        """
        row = {**row, "map": None, "overlay": None}
        name = result_name(path.relative_to(self.root))
        if anomaly_map is not None:
            import tifffile

            row |= {"map": f"{MAPS}/{name}.tiff", "overlay": f"{OVERLAYS}/{name}.png"}
            for file in (self.folder / row["map"], self.folder / row["overlay"]):
                file.parent.mkdir(parents=True, exist_ok=True)
            written = full_size(anomaly_map, frame, *photo.shape) if self._full_size else anomaly_map
            tifffile.imwrite(self.folder / row["map"], written.astype(np.float32, copy=False))
            seen = frame.seen(anomaly_map.shape)
            low, high = colour_range(anomaly_map if seen is None else anomaly_map[seen], self.normal_maps)
            write_overlay(self.folder / row["overlay"], photo, anomaly_map, low, high, frame)
        if self._regions:
            row["regions"] = self._regions.add(row["path"], name, row["regions"], photo)
        self._writer.write({key: value for key, value in row.items() if key != "regions"})
        self._file.flush()  # what is written stays, should the process be killed
        self.count += 1
        return row

    def close(self) -> None:
        """Close the tables."""
        self._file.close()
        if self._regions:
            self._regions.close()


@contextmanager
def results_folder(
    out: Path,
    root: Path,
    normal_maps: tuple[float, float] | None,
    origin: str = "",
    resume: bool = False,
    options: RowOptions = PLAIN,
) -> Iterator[Results]:
    """Results that are moved to `out` at the end, in place of those of an earlier run there; on a failure none are left.

    `root` is the folder whose structure the maps and overlays repeat. `resume` begins with what a killed process has left
    there. Raises DataError when there was no row, or where `origin` (model and source) or `options` were others.
    """
    origin = f"{origin} {options}"
    staging = out / f".adcore-{os.getpid()}-0.tmp.predict"
    with removed_on_failure(out):
        if resume:
            _take_over(out, staging, origin)
        else:
            remove_leftovers(out)
        staging.mkdir(parents=True, exist_ok=resume)
        (staging / ORIGIN).write_text(origin, encoding="utf-8")
        try:
            results = Results(staging, root, normal_maps, options)
            try:
                yield results
            finally:
                results.close()
            if not results.count:
                raise DataError(f"no image could be scored, so {TABLE} would be empty; see the skipped images")
            remove_earlier(out)
            kept = (staging / TABLE, staging / ORIGIN)
            for file in sorted(path for path in staging.rglob("*") if path.is_file() and path not in kept):
                target = out / file.relative_to(staging)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, target)
            os.replace(staging / TABLE, out / TABLE)  # last: it says that the others are complete
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _take_over(out: Path, staging: Path, origin: str) -> None:
    """Make `staging` of the folder that a killed process has left in `out`; DataError where its origin is another one."""
    unfinished = [staging, *leftovers(out)]  # a killed process may have had this one's number
    left = [path for path in unfinished if path.name.endswith(".predict") and (path / ORIGIN).is_file()]
    for path in left[:1]:
        if (path / ORIGIN).read_text(encoding="utf-8") != origin:
            raise DataError(
                f"the results in {out} are of another model or source, or of other options; choose another --out, or leave "
                "--resume out"
            )
        if path != staging:
            os.rename(path, staging)


def _is_written(folder: Path, name: str) -> bool:
    return not name or ((folder / name).is_file() and (folder / name).stat().st_size > 0)


def remove_earlier(out: Path) -> None:
    """Delete an earlier run's tables and the maps, overlays and crops that they name, and no other file."""
    for table, kinds in ((TABLE, FILES), (region_table.TABLE, ("crop",))):
        if not (out / table).is_file():
            continue
        with open(out / table, newline="", encoding="utf-8", errors="replace") as file:
            names = [row.get(kind) for row in csv.DictReader(file) for kind in kinds]
        (out / table).unlink()
        for name in filter(None, names):
            _remove_named(out, PurePosixPath(name))


def _remove_named(out: Path, path: PurePosixPath) -> None:
    """Remove a file of an earlier run, and folders that are empty then."""
    if path.parts[0] in (MAPS, OVERLAYS, region_table.CROPS) and ".." not in path.parts:
        (out / path).unlink(missing_ok=True)
        with suppress(OSError):  # not empty
            for folder in [out.joinpath(*path.parts[:depth]) for depth in range(len(path.parts) - 1, 0, -1)]:
                folder.rmdir()


def result_name(path: Path) -> str:
    """The name of an image's results: its path below the source, which keeps the suffix, for a.png and a.jpg are two files.

    A part that is too long, or is a folder called like an image, ends in a digest of its name instead.
    """
    *folders, name = path.parts
    return "/".join([*(_part(part, is_image(part)) for part in folders), _part(name, False)])


def _part(name: str, altered: bool) -> str:
    raw = name.encode()
    if not altered and len(raw) <= LONGEST:
        return name
    return f"{raw[: LONGEST - 40].decode('utf-8', 'ignore')}-{hashlib.sha256(raw).hexdigest()[:16]}"
