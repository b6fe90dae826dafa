"""What leaves a station: the table of results, and the reviewed images as a dataset."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from typing import IO, Any

from PIL import Image, ImageDraw

from adcore_runtime.csv_cells import Writer
from adcore_runtime.decisions import GOOD
from adcore_runtime.station.store import Store

COLUMNS = ["id", "created", "name", "image", "model", "score", "threshold", "normalized_score", "predicted"]
COLUMNS += ["verdict", "review"]
METADATA = "adcore_metadata.csv"  # what adcore's layout `folder` reads
METADATA_COLUMNS = ["image_path", "split", "label", "defect", "mask_path"]
HELD_OUT = 0.2  # of the good images, for test, as the layout `folder` itself does


def csv_lines(store: Store) -> Iterator[str]:
    """The table of all results, a thousand at a time."""
    number, header = 0, True
    while (rows := store.after(number, 1000)) or header:
        text = io.StringIO(newline="")
        writer = Writer(text, COLUMNS, header)
        for row in rows:
            writer.write({key: row[key] for key in COLUMNS})
            number = row["id"]
        header = False
        yield text.getvalue()


def write_dataset(store: Store, file: IO[bytes]) -> None:
    """Write the reviewed images as a ZIP: good/, bad/, masks of what was drawn, the list that `folder` reads, COCO JSON."""
    rows = [row for row in store.reviewed() if (store.folder / "images" / row["image"]).is_file()]
    tested = _held_out(rows)
    text = io.StringIO(newline="")
    listed = Writer(text, METADATA_COLUMNS)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for row in rows:
            path, good = store.folder / "images" / row["image"], row["review"] == GOOD
            name = f"{row['review']}/{row['id']:08d}{path.suffix}"
            archive.write(path, name)
            line = {"image_path": name, "split": "test" if row["id"] in tested or not good else "train"}
            line |= {"label": "normal" if good else "anomalous", "defect": "good" if good else "bad", "mask_path": ""}
            if _has_mask(row):
                line["mask_path"] = f"ground_truth/bad/{row['id']:08d}.png"
                archive.writestr(line["mask_path"], _mask(row))
            listed.write(line)
        if rows:
            archive.writestr(METADATA, text.getvalue())
            archive.writestr("coco.json", json.dumps(coco(rows), indent=2))


def coco(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Reviewed results as COCO: an annotation for each box that was drawn on a bad image."""
    images, annotations = [], []
    for row in rows:
        suffix = row["image"].rpartition(".")[2]
        image = {"id": row["id"], "file_name": f"{row['review']}/{row['id']:08d}.{suffix}", "name": row["name"]}
        image |= {"width": row["width"], "height": row["height"], "review": row["review"], "score": row["score"]}
        images.append(image)
        for x, y, width, height in row["marked"] if _has_mask(row) else ():
            corners = [x, y, x + width, y, x + width, y + height, x, y + height]
            box = {"id": len(annotations) + 1, "image_id": row["id"], "category_id": 1, "bbox": [x, y, width, height]}
            annotations.append(box | {"area": width * height, "iscrowd": 0, "segmentation": [corners]})
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "bad"}]}


def _has_mask(row: dict[str, Any]) -> bool:
    return bool(row["review"] != GOOD and row["marked"] and row["width"])


def _mask(row: dict[str, Any]) -> bytes:
    """The boxes of a row as a PNG of the image's size: 255 within."""
    mask = Image.new("L", (row["width"], row["height"]))
    draw = ImageDraw.Draw(mask)
    for x, y, width, height in row["marked"]:
        draw.rectangle((x, y, x + width - 1, y + height - 1), fill=255)
    data = io.BytesIO()
    mask.save(data, "PNG")
    return data.getvalue()


def _held_out(rows: list[dict[str, Any]]) -> set[int]:
    """Good images that are for test, where there are bad ones; a hash decides, so that additions do not reshuffle."""
    good = [row["id"] for row in rows if row["review"] == GOOD]
    count = min(max(round(HELD_OUT * len(good)), 1), len(good) - 1) if len(good) < len(rows) else 0
    return set(sorted(good, key=lambda number: hashlib.sha256(str(number).encode()).digest())[: max(count, 0)])
