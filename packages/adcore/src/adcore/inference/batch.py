"""Predicting files and folders, one image after the other, and writing what was found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adcore.data.dataset import Skipped
from adcore.data.layout import IMAGE_SUFFIXES, check_name, images_below
from adcore.data.samples import DatasetReader, Sample
from adcore.errors import DataError
from adcore.evaluation.score import ScoredImage, score_each
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
) -> Iterator[dict[str, Any] | Skipped]:
    """Score `source` image by image: a row (path, score, normalized_score, predicted) each, or a Skipped.

    With `out`, rows also name the files `map` and `overlay`, and the folder gets, once the iterator has ended,
    predictions.csv, maps/*.tiff (raw float32) and overlays/*.png. Each image is decoded once, and let go.
    """
    samples = [Sample(path, "test", 0, "") for path in find_images(source)]
    root = source if source.is_dir() else source.parent
    scored = score_each(
        predictor.model,
        predictor.preprocess,
        DatasetReader(root),
        samples,
        predictor.device,
        skip_bad,
        photos=out is not None,
    )
    if out is None:
        for one in scored:
            yield one if isinstance(one, Skipped) else _row(predictor, one)
        return
    from adcore.inference.results import results_folder  # imports matplotlib

    with results_folder(out, root, predictor.normal_maps) as results:
        for one in scored:
            yield one if isinstance(one, Skipped) else results.add(one, _row(predictor, one))


def _row(predictor: Predictor, image: ScoredImage) -> dict[str, Any]:
    result = predictor.result(image.score, None)
    return {
        "path": str(image.sample.image_path),
        "score": image.score,
        "normalized_score": result.normalized_score,
        "predicted": None if result.is_anomalous is None else int(result.is_anomalous),
    }
