"""What a station exports is what adcore trains on: the layout `folder` reads good, bad, splits and masks."""

from __future__ import annotations

import io
import zipfile

import numpy as np
from adcore.data.folder import Folder
from adcore_runtime.decisions import Result
from adcore_runtime.station.export import write_dataset
from adcore_runtime.station.store import Store
from PIL import Image


def test_reviewed_images_are_read_as_a_dataset(tmp_path) -> None:
    store, picture, archive = Store(tmp_path / "station"), io.BytesIO(), io.BytesIO()
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(picture, "PNG")
    for label in ("good",) * 5 + ("bad",) * 2 + (None,):
        result = Result(0.5, None, None, None, None, size=(20, 30))
        number = store.add("part", store.keep_image(picture.getvalue()), "tiny", result)["id"]
        if label:
            store.review(number, label, [[2, 3, 4, 5]] if number == 6 else None)
    write_dataset(store, archive)
    store.close()
    zipfile.ZipFile(archive).extractall(tmp_path / "reviewed")
    samples = Folder(tmp_path / "reviewed").samples("reviewed")
    assert (
        sorted((sample.split, sample.label) for sample in samples)
        == [("test", 0)] + [("test", 1)] * 2 + [("train", 0)] * 4
    )
    (mask,) = (sample.mask_path for sample in samples if sample.mask_path)
    assert (np.asarray(Image.open(mask)) > 0).sum() == 4 * 5
