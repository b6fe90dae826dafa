"""Predicting files and folders, one image after the other, and writing what was found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adcore_runtime.geometry import Frame
from adcore_runtime.listing import find_images
from adcore_runtime.results import results_folder
from adcore_runtime.rows import PLAIN, RowOptions, prediction_row

from adcore.data.dataset import Skipped
from adcore.data.roi import rois_for
from adcore.data.samples import DatasetReader, Sample
from adcore.errors import ConfigError
from adcore.evaluation.pool import protocol_record
from adcore.evaluation.score import Progress, ScoredImage, score_each
from adcore.files import write_json
from adcore.inference.predictor import Predictor
from adcore.inference.workers import Workers
from adcore.model import BatchModel

PROTOCOL_FILE = "protocol.json"  # of images that scored one another, beside their predictions.csv


def predict_files(
    predictor: Predictor,
    source: Path,
    out: Path | None = None,
    skip_bad: bool = False,
    origin: str = "",
    resume: bool = False,
    options: RowOptions = PLAIN,
    workers: Workers | None = None,
    progress: Progress | None = None,
    roi: Path | None = None,
) -> Iterator[dict[str, Any] | Skipped]:
    """Score `source` image by image: a row (path, score, normalized_score, predicted) each, or a Skipped.

    With `out`, rows also name the files `map` and `overlay`, and the folder gets, once the iterator has ended,
    predictions.csv, maps/*.tiff (raw float32) and overlays/*.png. Each image is decoded once, and let go.
    `resume` leaves out images whose results a killed process has left in `out`, if they are of the same `origin`.
    `workers`: processes that do the scoring on a CPU, with the same results; ConfigError where the model or device does not
    allow them. `roi`: the images' regions of interest, for a model that was trained with one for each. `options` add `verdict`
    and `regions`, and regions.csv. `progress` is told the tiles of each image that are done. Of a BatchModel `out` also gets
    protocol.json.
    """
    if resume and isinstance(predictor.model, BatchModel):
        raise ConfigError(
            f"{predictor.model.card.name} scores the images of a folder together; start over with --overwrite"
        )
    if workers and isinstance(predictor.model, BatchModel):
        raise ConfigError(f"{predictor.model.card.name} scores the images of a folder together; leave --workers out")
    if workers and predictor.device.type != "cpu":
        raise ConfigError(
            f"--workers are processes on the CPU, not on {predictor.device}; add --device cpu, or leave them out"
        )
    rois = rois_for(predictor.preprocess, roi)
    samples = [Sample(path, "test", 0, "") for path in find_images(source)]
    root = source if source.is_dir() else source.parent

    def scored(samples: list[Sample]) -> Iterator[ScoredImage | Skipped]:
        if workers:
            return workers.score(samples, root, skip_bad, out is not None, predictor.preprocess)
        reader = DatasetReader(root)
        reader.rois = rois
        return score_each(
            predictor.model,
            predictor.preprocess,
            reader,
            samples,
            predictor.device,
            skip_bad,
            photos=out is not None,
            progress=progress,
        )

    if out is None:
        for one in scored(samples):
            yield one if isinstance(one, Skipped) else _row(predictor, one, options)
        return
    together: list[Path] = []
    with results_folder(out, root, predictor.normal_maps, origin, resume, options) as results:
        for one in scored([sample for sample in samples if str(sample.image_path) not in results.done]):
            if isinstance(one, Skipped):
                yield one
                continue
            together.append(one.sample.image_path)
            row = _row(predictor, one, options)
            yield results.add(one.sample.image_path, one.anomaly_map, one.photo, row, _frame(predictor, one))
    protocol = protocol_record(predictor.model, together)
    if protocol:
        write_json(out / PROTOCOL_FILE, protocol)
    else:
        (out / PROTOCOL_FILE).unlink(missing_ok=True)  # of the results that these replace


def _row(predictor: Predictor, image: ScoredImage, options: RowOptions) -> dict[str, Any]:
    result = predictor.result(image.score, image.anomaly_map)
    return prediction_row(image.sample.image_path, result, options, _frame(predictor, image))


def _frame(predictor: Predictor, image: ScoredImage) -> Frame:
    return predictor.preprocess.of(image.roi).frame(*image.size)
