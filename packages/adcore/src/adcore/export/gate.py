"""The gate: a graph is compared with its model, image by image and backend by backend, before it gets a name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from adcore_runtime.backends import BACKENDS, MAP, SCORE, Run, open_graph
from adcore_runtime.decisions import Calibration, Result, is_anomalous
from adcore_runtime.decode import decode
from adcore_runtime.image import image_from_array
from adcore_runtime.predictor import camera_frame
from adcore_runtime.preprocess import Preprocess

from adcore.artifact import Artifact
from adcore.data.image_io import read_image
from adcore.errors import ExportError
from adcore.export.pictures import CheckImages
from adcore.inference.predictor import Predictor

SCORE_LIMIT = 1e-4  # of the score; of one near 0, of a hundredth of the largest
MAP_LIMIT = 1e-3  # of the range of all maps
MARGIN = 1e-3  # of the calibrated range of scores: nearer to the threshold than that a decision may differ
TOGETHER = 4  # images in a batch, where a graph takes any number


@dataclass(frozen=True)
class Difference:
    """The largest differences between a backend and torch; `flips` counts the decisions that differ."""

    score: float  # relative
    map: float | None  # of the maps' range; None without maps
    flips: int

    def within_limits(self) -> bool:
        """Whether score and map are near enough."""
        return self.score <= SCORE_LIMIT and (self.map or 0.0) <= MAP_LIMIT


class Gate:
    """Compares graphs with the model of `artifact` on `images`; `camera` and `batch` are those of the graphs."""

    def __init__(
        self, artifact: Artifact, images: CheckImages, camera: tuple[int, int] | None, batch: int | None
    ) -> None:
        self.images, self.camera, self.batch = images, camera, batch
        self.preprocess = Preprocess.from_dict(artifact.preprocess.to_dict())
        self.calibration = Calibration.from_dict(artifact.calibration)
        predictor = Predictor(artifact)
        self.expected = [predictor.predict(image) for _, image in images.images]

    def _inputs(self, name: str, image: Path | np.ndarray) -> tuple[list[np.ndarray], tuple[int, int]]:
        """What the runtime gives a graph, (1, ...) each, and the image's height and width."""
        channels = self.preprocess.channels
        if self.camera:
            return [camera_frame(_decoded(image, channels), self.camera, channels, name)[None]], self.camera
        planes = (
            image_from_array(image, channels) if isinstance(image, np.ndarray) else read_image(image, channels).numpy()
        )
        return self.preprocess.inputs(planes), planes.shape[1:]

    def examples(self) -> np.ndarray:
        """Two inputs, to trace a graph with."""
        return np.concatenate([self._inputs(*one)[0][0] for one in self.images.images[:2]])

    def check_onnx(self, path: Path) -> dict[str, dict[str, Any]]:
        """Compare the graph of `path` in each backend that is installed; what was measured, by backend."""
        found = {}
        for backend in BACKENDS:
            if find_spec(backend):
                difference = self.check(backend, open_graph(path, backend, None))
                found[backend] = {"version": version(backend), **vars(difference)}
        return found

    def check(self, backend: str, run: Run) -> Difference:
        """Compare one backend; ExportError names the image that differs most, where it is beyond a limit."""
        worst, flipped = Difference(0.0, None, 0), set()
        largest = max(abs(result.score) for result in self.expected)
        spread = self._spread()
        for (name, _), expected, found in self._results(run):
            score = abs(found[0] - expected.score) / max(abs(expected.score), 0.01 * largest, 1e-30)
            difference = None if spread is None else float(np.abs(found[1] - expected.anomaly_map).max()) / spread
            one = Difference(score, difference, 0)
            if not one.within_limits():
                raise ExportError(f"{_said(backend, name, one, expected, found[0])}; nothing was written")
            if self._flipped(backend, name, expected.score, found[0]):
                flipped.add(name)
            worst = Difference(max(worst.score, score), _larger(worst.map, difference), len(flipped))
        return worst

    def _results(self, run: Run) -> Iterator[tuple[tuple[str, Any], Result, tuple[float, np.ndarray | None]]]:
        """Each image with what torch and the graph say: alone, and in batches where the graph takes them."""
        for size in [self.batch] if self.batch else [1, TOGETHER]:
            for start in range(0, len(self.expected), size):
                group = range(start, min(start + size, len(self.expected)))
                given = [self._inputs(*self.images.images[i]) for i in group]
                results = self._run([one for inputs, _ in given for one in inputs], run, size)
                for i, (inputs, shape) in zip(group, given, strict=True):
                    found = self.preprocess.whole(shape, islice(results, len(inputs)))
                    yield self.images.images[i], self.expected[i], found

    def _run(self, inputs: list[np.ndarray], run: Run, size: int) -> Iterator[tuple[float, np.ndarray | None]]:
        """Score and map of each input (1, ...), in batches of `size`."""
        for start in range(0, len(inputs), size):
            batch = inputs[start : start + size]
            filled = batch + [batch[-1]] * (size - len(batch)) if self.batch else batch
            outputs = run(np.concatenate(filled))
            scores, maps = np.array(outputs[SCORE]), outputs.get(MAP)
            maps = None if maps is None else np.array(maps)  # a copy: libraries use their memory again
            for place in range(len(batch)):
                yield float(scores[place]), None if maps is None else maps[place]

    def _spread(self) -> float | None:
        """The range of all maps of the model; None without maps."""
        maps = [result.anomaly_map for result in self.expected]
        if maps[0] is None:
            return None
        low, high = min(m.min() for m in maps), max(m.max() for m in maps)
        return float(max(high - low, 1e-6 * max(abs(low), abs(high)), 1e-30))

    def _flipped(self, backend: str, name: str, expected: float, found: float) -> bool:
        """Whether the decision differs; ExportError where torch's score is not at the threshold."""
        threshold, scores = self.calibration.threshold, self.calibration.score_range
        if threshold is None:
            return False
        here, there = is_anomalous([expected, found], threshold)
        if here == there:
            return False
        margin = MARGIN * (scores[1] - scores[0]) if scores else 0.0
        if abs(expected - threshold) > margin:
            raise ExportError(
                f"{backend} decides otherwise on {name}: score {found:.6g}, torch {expected:.6g}, threshold "
                f"{threshold:.6g}; nothing was written"
            )
        return True


def _decoded(image: Path | np.ndarray, channels: int) -> np.ndarray:
    return image if isinstance(image, np.ndarray) else decode(image, channels).values


def _larger(one: float | None, other: float | None) -> float | None:
    return max(one or 0.0, other) if other is not None else one


def _said(backend: str, name: str, found: Difference, expected: Result, score: float) -> str:
    """What differs most, in words."""
    if not found.score <= SCORE_LIMIT:  # NaN, too
        return (
            f"{backend} gives another score on {name}: {score:.6g}, torch {expected.score:.6g}; the difference is "
            f"{found.score:.1e} of it, at most {SCORE_LIMIT:.0e} is allowed"
        )
    return (
        f"{backend} gives another map on {name}: the difference is {found.map:.1e} of the maps' range, at most "
        f"{MAP_LIMIT:.0e} is allowed"
    )
