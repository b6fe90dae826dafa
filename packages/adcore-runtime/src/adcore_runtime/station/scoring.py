"""Scoring one image after the other, with a limit for those that wait."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from adcore_runtime.errors import DataError
from adcore_runtime.pixels import RETRY
from adcore_runtime.predictor import Predictor
from adcore_runtime.station.store import Store


class Full(Exception):
    """As many images wait as are allowed."""


class Scorer:
    """One worker: the model uses all cores for an image, so that several at once would be no faster."""

    def __init__(self, predictor: Predictor, store: Store, name: str, limit: int) -> None:
        self.predictor, self.store, self.name, self.limit, self.waiting = predictor, store, name, limit, 0
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

    async def score(self, data: bytes, name: str) -> dict[str, Any]:
        """Score and store the bytes of an image file; DataError, and nothing stored, where they are none."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, self._score, data, name)

    def _score(self, data: bytes, name: str) -> dict[str, Any]:
        path = self.store.keep_image(data)
        try:
            return self.store.add(name, path, self.name, self.predictor.predict(path))
        except DataError as error:
            path.unlink(missing_ok=True)
            reason = str(error).replace(str(path), "the image").replace(RETRY, "send the file again")
            raise DataError(reason) from None
        except BaseException:
            path.unlink(missing_ok=True)
            raise
