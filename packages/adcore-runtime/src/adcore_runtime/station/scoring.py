"""Scoring one image after the other, with a limit for those that wait."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np

from adcore_runtime.decisions import Result
from adcore_runtime.errors import DataError
from adcore_runtime.pixels import RETRY
from adcore_runtime.predictor import Predictor
from adcore_runtime.regions import RegionRule
from adcore_runtime.station.drift import Watcher
from adcore_runtime.station.store import Seen, Store


class Full(Exception):
    """As many images wait as are allowed."""


class Scorer:
    """Models by name, the first for whoever names none, and one worker.

    The model uses all cores for an image, so that several at once would be no faster.
    """

    def __init__(self, models: Mapping[str, Predictor], store: Store, limit: int) -> None:
        self.models, self.store, self.limit, self.waiting = dict(models), store, limit, 0
        self.first = next(iter(self.models))
        self.drift = Watcher(self.models, store)
        self._worker = ThreadPoolExecutor(1)

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place in the queue, taken before the image is received, so that memory has a limit; raises Full."""
        if self.waiting >= self.limit:
            raise Full
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1

    async def score(self, data: bytes, name: str, model: str | None = None, with_map: bool = False) -> dict[str, Any]:
        """Score and store the bytes of an image file: its row, `with_map` also the raw map.

        DataError, and nothing stored, where they are none.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._worker, self._score, data, name, model or self.first, with_map, None)

    def score_file(self, data: bytes, name: str, seen: Seen) -> dict[str, Any]:
        """The same for a file of a watched folder; waits for its turn."""
        return self._worker.submit(self._score, data, name, self.first, False, seen).result()

    def close(self) -> None:
        """Drop what waits, and end once the image in work is stored."""
        self._worker.shutdown(cancel_futures=True)

    def _score(self, data: bytes, name: str, model: str, with_map: bool, seen: Seen | None) -> dict[str, Any]:
        path, predictor = self.store.keep_image(data), self.models[model]
        try:
            result, values = self.drift.observe(model, predictor, path)
            regions = regions_of(predictor, result)
            with self.drift.observed(model, values) as observed:
                row = self.store.add(name, path, model, result, regions, seen, observed)
        except DataError as error:
            path.unlink(missing_ok=True)
            reason = str(error).replace(str(path), "the image").replace(RETRY, "send the file again")
            raise DataError(reason) from None
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return row | {"map": encoded(result.anomaly_map)} if with_map else row


def regions_of(predictor: Predictor, result: Result) -> list[dict[str, Any]] | None:
    """The regions above the calibrated pixel threshold, in original pixels; None without that threshold or a map."""
    threshold = predictor.calibration.pixel_threshold
    if threshold is None or result.anomaly_map is None or result.size is None:
        return None
    frame = predictor.description.preprocess.frame(*result.size)
    return [region.to_dict() for region in RegionRule(threshold).find(result.anomaly_map, frame)]


def encoded(anomaly_map: np.ndarray | None) -> dict[str, Any] | None:
    """A raw map for JSON: its shape (rows, columns), and float32 little-endian in base64."""
    if anomaly_map is None:
        return None
    data = anomaly_map.astype("<f4").tobytes()
    return {"shape": list(anomaly_map.shape), "datatype": "FP32", "data": base64.b64encode(data).decode()}
