"""Predicting files and folders, and writing what was found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from adcore.data.image_io import read_image
from adcore.data.layout import IMAGE_SUFFIXES, check_name, images_below
from adcore.data.samples import DatasetReader, Sample
from adcore.errors import DataError
from adcore.evaluation.evaluate import prediction_rows, write_predictions
from adcore.evaluation.overlay import write_overlay
from adcore.evaluation.score import ScoredImage, score_samples
from adcore.files import atomic_path, removed_on_failure
from adcore.inference.predictor import Predictor


def find_images(source: Path) -> list[Path]:
    """`source` itself, or all images below it, sorted; DataError when there is none."""
    if source.is_file():
        return [check_name(source)]
    if not source.is_dir():
        raise DataError(f"{source} does not exist; give an image or a folder of images")
    found = images_below(source)
    if not found:
        raise DataError(f"{source} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return found


def predict_files(
    predictor: Predictor, source: Path, out: Path | None = None, skip_bad: bool = False
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Score `source`; rows (path, score, normalized_score, predicted) and skipped files.

    With `out`: predictions.csv, maps/*.tiff (raw float32) and overlays/*.png; on a failure nothing is left there.
    """
    samples = [Sample(path, "test", 0, "") for path in find_images(source)]
    root = source if source.is_dir() else source.parent
    scoring = score_samples(
        predictor.model, predictor.preprocess, DatasetReader(root), samples, predictor.device, skip_bad
    )
    rows = []
    for row, image in zip(prediction_rows(scoring, predictor.threshold), scoring.images, strict=True):
        result = predictor.result(image.score, None)
        rows.append(
            {
                "path": row["path"],
                "score": row["score"],
                "normalized_score": result.normalized_score,
                "predicted": row["predicted"],
            }
        )
    if out:
        with removed_on_failure(out):
            write_predictions(out / "predictions.csv", rows)
            maps = [image.anomaly_map for image in scoring.images if image.anomaly_map is not None]
            low = float(np.median([np.median(one) for one in maps])) if maps else 0.0
            high = max([predictor.threshold or 0.0, *(float(one.max()) for one in maps)])  # a calm folder stays dark
            for image in scoring.images:
                if image.anomaly_map is not None:
                    _write_map(out, root, image, low, high)
    return rows, scoring.skipped


def _write_map(out: Path, root: Path, image: ScoredImage, low: float, high: float) -> None:
    """The raw map as a float TIFF, and the photograph with it drawn over."""
    path = image.sample.image_path
    stem = path.relative_to(root).as_posix().replace("/", "_")  # keeps the suffix: a.png and a.jpg are two files
    with atomic_path(out / "maps" / f"{stem}.tiff") as temporary:
        tifffile.imwrite(temporary, image.anomaly_map.astype(np.float32))
    photo = read_image(path).permute(1, 2, 0).numpy()
    write_overlay(out / "overlays" / f"{stem}.png", photo, image.anomaly_map, low, high)
