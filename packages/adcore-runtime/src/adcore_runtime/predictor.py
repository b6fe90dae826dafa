"""Predicting with an exported model from Python: `adcore_runtime.load("model.onnx").predict("part.png").score`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from adcore_runtime.backends import MAP, SCORE, Run, open_graph
from adcore_runtime.decisions import Calibration, Result
from adcore_runtime.decode import decode
from adcore_runtime.drift import statistics
from adcore_runtime.errors import AdcoreError, ArtifactError, ConfigError, DataError
from adcore_runtime.image import gray_photo, image_from_array, read_image, to_planes
from adcore_runtime.listing import find_images
from adcore_runtime.onnx_file import Description, describe
from adcore_runtime.results import results_folder
from adcore_runtime.rows import PLAIN, RowOptions, prediction_row


@dataclass
class Skipped:
    """An image that could not be read."""

    path: str
    reason: str


class Predictor:
    """An exported model with its preprocessing and calibration."""

    def __init__(self, path: Path, description: Description, calibration: Calibration, run: Run) -> None:
        self.path, self.description, self.calibration, self._run = path, description, calibration, run

    @property
    def threshold(self) -> float | None:
        """The threshold on raw scores."""
        return self.calibration.threshold

    def predict(self, image: str | Path | np.ndarray) -> Result:
        """Score a file, or a decoded image as a camera gives it.

        An array is (H, W), (H, W, 1), (H, W, 3) or of the model's channels: uint8 is divided by 255, uint16 by 65535, as in
        files; float32 has to have the range of the training images. A model that was exported for a camera takes uint8 of
        that camera's size alone. Raises DataError for anything else, and for NaN or infinite values.
        """
        inputs, _, _, size = self._inputs(image, photo=False)
        return self._score(inputs, size, str(image) if isinstance(image, str | Path) else "the image")

    def observe(self, image: str | Path | np.ndarray) -> tuple[Result, dict[str, float]]:
        """`predict`, and the image's statistics for `adcore_runtime.drift.Monitor`."""
        name = str(image) if isinstance(image, str | Path) else "the image"
        inputs, plane, _, size = self._inputs(image, photo=False)
        result = self._score(inputs, size, name)
        if plane is None:  # the graph preprocesses
            preprocess = self.description.preprocess
            plane = preprocess(to_planes(inputs[0][0], name, "", preprocess.channels))
        return result, statistics(plane, result.score, result.anomaly_map)

    def predict_files(
        self,
        source: Path,
        out: Path | None = None,
        skip_bad: bool = False,
        options: RowOptions = PLAIN,
    ) -> Iterator[dict[str, Any] | Skipped]:
        """Score `source`, an image or a folder, image by image: a row (path, score, normalized_score, predicted) each.

        With `skip_bad` an image that cannot be read gives a Skipped. With `out`, rows also name the files `map` and
        `overlay`, and the folder gets predictions.csv, maps/*.tiff (raw float32) and overlays/*.png: each is on the disk
        before the next image is read, and all get their names once the iterator has ended. `options` add verdict and regions.
        """
        files = find_images(source)
        if out is None:
            for one in self._each(files, skip_bad, False, options):
                yield one if isinstance(one, Skipped) else one[3]
            return
        root = source if source.is_dir() else source.parent
        with results_folder(out, root, self.calibration.map_range, options=options) as results:
            for one in self._each(files, skip_bad, True, options):
                yield one if isinstance(one, Skipped) else results.add(*one)

    def _each(self, files: list[Path], skip_bad: bool, photo: bool, options: RowOptions) -> Iterator[tuple | Skipped]:
        """(path, anomaly map, photo, row, frame) of each file."""
        for path in files:
            try:
                inputs, _, shown, size = self._inputs(path, photo)
            except DataError as error:
                if not skip_bad:
                    raise
                yield Skipped(str(path), str(error))
                continue
            result = self._score(inputs, size, str(path))
            frame = self.description.preprocess.frame(*size)
            yield path, result.anomaly_map, shown, prediction_row(path, result, options, frame), frame

    def _inputs(
        self, image: str | Path | np.ndarray, photo: bool
    ) -> tuple[list[np.ndarray], np.ndarray | None, np.ndarray | None, tuple[int, int]]:
        """The graph's inputs (1, ...), the plane (C, h, w) that they are cut from unless the graph preprocesses, with `photo`
        the decoded image in gray, and the image's height and width.
        """
        preprocess = self.description.preprocess
        if self.description.camera:
            name = "the array" if isinstance(image, np.ndarray) else str(image)
            values = image if isinstance(image, np.ndarray) else decode(image, preprocess.channels).values
            frame = camera_frame(values, self.description.camera, preprocess.channels, name)
            shown = gray_photo(to_planes(values, name, "", preprocess.channels)) if photo else None
            return [frame[None]], None, shown, values.shape[:2]
        if isinstance(image, np.ndarray):
            planes = image_from_array(image, preprocess.channels)
        else:
            planes = read_image(image, preprocess.channels)
        try:
            plane = preprocess(planes)
            inputs = preprocess.cut(plane)
        except DataError as error:
            name = "the array" if isinstance(image, np.ndarray) else str(image)
            raise DataError(f"{name}: {error}") from None
        return inputs, plane, gray_photo(planes) if photo else None, planes.shape[1:]

    def _score(self, inputs: list[np.ndarray], size: tuple[int, int], name: str) -> Result:
        results = (self._found(np.ascontiguousarray(one), name) for one in inputs)
        return replace(self.calibration.result(*self.description.preprocess.whole(size, results)), size=size)

    def _found(self, inputs: np.ndarray, name: str) -> tuple[float, np.ndarray | None]:
        """Score and map of one input of the graph."""
        try:
            found = self._run(inputs)
        except Exception as error:  # each library has its own kinds
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            raise AdcoreError(f"{self.path} failed on {name}: {reason}; copy or export it again") from error
        score, maps = float(found[SCORE].reshape(-1)[0]), found.get(MAP)
        anomaly_map = (
            None if maps is None else np.array(maps[0], np.float32)
        )  # a copy: libraries use their memory again
        if not np.isfinite(score) or (anomaly_map is not None and not np.isfinite(anomaly_map).all()):
            raise DataError(f"{name}: its score or map is NaN or infinite; look for extreme values in that image")
        return score, anomaly_map


def camera_frame(values: np.ndarray, camera: tuple[int, int], channels: int, name: str) -> np.ndarray:
    """(H, W) or (H, W, C) as (H, W, `channels`) uint8; DataError unless it is uint8 of the camera's height and width."""
    height, width = camera
    if values.dtype != np.uint8 or values.ndim not in (2, 3) or values.shape[:2] != camera:
        found = f"{values.dtype} of shape {values.shape}"
        raise DataError(
            f"{name}: {found}, where the model was exported for a camera of {height}x{width} (height x width) px, uint8; "
            "send such images, or export without --camera"
        )
    frame = values[..., None] if values.ndim == 2 else values
    if frame.shape[2] == 1 and channels == 3:
        frame = np.repeat(frame, 3, axis=2)
    if frame.shape[2] != channels:
        raise DataError(f"{name}: {frame.shape[2]} channels, where the model takes {channels}")
    return np.ascontiguousarray(frame)


def load(
    path: str | Path,
    backend: str = "onnxruntime",
    threads: int | None = None,
    threshold: float | None = None,
    category: str | None = None,
) -> Predictor:
    """An exported model, run by "onnxruntime" or "openvino" on `threads` cores (None: the library's choice).

    `threshold` takes the place of the stored one; `category` chooses that of one category, of a model that has one for each.
    Raises ArtifactError for a file that is damaged, foreign or newer, ConfigError for an argument that is not valid.
    """
    path = Path(path)
    description = describe(path)
    batch = description.record.get("batch")
    if batch not in (None, 1):
        raise ArtifactError(
            f"{path} takes {batch} images at a time, as a server has them; export it again without --batch"
        )
    calibration = description.calibration
    if category is not None:
        calibration = calibration.of_category(category)
    if threshold is not None:
        if not np.isfinite(threshold):
            raise ConfigError(f"threshold must be a finite number, not {threshold}")
        calibration = calibration.with_threshold(float(threshold))
    return Predictor(path, description, calibration, open_graph(path, backend, threads))
