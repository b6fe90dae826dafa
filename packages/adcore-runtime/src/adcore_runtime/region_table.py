"""regions.csv of `predict --out`: one row a region, with a picture of each where they are asked for."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from adcore_runtime.csv_cells import Writer, continued, plain, whole_rows
from adcore_runtime.regions import box_of

TABLE, CROPS = "regions.csv", "crops"
COLUMNS = ("path", "region", "x", "y", "width", "height", "area", "peak", "polygon")
MARGIN = 0.25  # of a picture, on each side, as a share of the box


class RegionTable:
    """Writes regions and their pictures into `folder`; rows of images that are not in `done` are dropped."""

    def __init__(self, folder: Path, done: Collection[str], crops: bool) -> None:
        self.folder, self.crops = folder, crops
        columns = (*COLUMNS, "crop") if crops else COLUMNS
        kept = [row for row in whole_rows(folder / TABLE) if plain(row["path"]) in done]
        self._file = continued(folder / TABLE, columns, kept)
        self._writer = Writer(self._file, columns, header=False)

    def add(self, path: str, name: str, regions: list[dict[str, Any]], photo: np.ndarray) -> list[dict[str, Any]]:
        """Write the regions of one image, whose results are called `name`; the regions, with `crop` where it was written.

        `photo`: (H, W) uint8, of the original size.
        """
        written = []
        for number, region in enumerate(regions, 1):
            if self.crops:
                region = {**region, "crop": f"{CROPS}/{name}-{number}.png"}
                self._save(region, photo)
            polygon = json.dumps(region["polygon"], separators=(",", ":"))
            self._writer.write({"path": path, "region": number, **region, "polygon": polygon})
            written.append(region)
        self._file.flush()  # before the image's own row, which says that these are complete
        return written

    def close(self) -> None:
        """Close the table."""
        self._file.close()

    def _save(self, region: Mapping[str, Any], photo: np.ndarray) -> None:
        rows, columns = box_of(region, MARGIN, *photo.shape)
        target = self.folder / region["crop"]
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.ascontiguousarray(photo[rows, columns])).save(target)
