"""Several processes that score the images of a folder on a CPU; one of them, the caller, writes what they found."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from adcore.child import begin_child
from adcore.data.dataset import Skipped
from adcore.data.roi import Rois, rois_for
from adcore.data.samples import DatasetReader, Sample
from adcore.errors import AdcoreError, ConfigError
from adcore.evaluation.score import ScoredImage, score_each
from adcore.inference.predictor import Predictor, load
from adcore.settings import settings

CHUNK = 16  # images that a process gets at a time
AHEAD = 2  # chunks for each process that are asked for and not yet written

_predictor: Predictor | None = None  # of this process, if it is a worker
_rois: Rois | None = None


@dataclass(frozen=True)
class Workers:
    """`count` processes that load `artifact` each and share the cores."""

    count: int
    artifact: Path
    category: str | None = None
    roi: Path | None = None  # of the images, for a model that was trained with one for each

    def score(self, samples: list[Sample], root: Path, skip_bad: bool, photos: bool) -> Iterator[ScoredImage | Skipped]:
        """As `score_each` on a CPU, in the same order; AdcoreError of a worker, ConfigError where one was killed."""
        threads = max(1, torch.get_num_threads() // self.count)
        pool = ProcessPoolExecutor(
            self.count,
            multiprocessing.get_context("spawn"),  # threads of torch do not survive a fork
            _begin,
            (self.artifact, self.category, self.roi, threads, asdict(settings())),
        )
        chunks = (samples[start : start + CHUNK] for start in range(0, len(samples), CHUNK))

        def ask(number: int) -> Iterator[Future[list[ScoredImage | Skipped] | AdcoreError]]:
            return (pool.submit(_score, chunk, root, skip_bad, photos) for chunk in islice(chunks, number))

        try:
            waiting = deque(ask(AHEAD * self.count))
            while waiting:
                scored = waiting.popleft().result()
                waiting.extend(ask(1))
                if isinstance(scored, AdcoreError):
                    raise scored
                yield from scored
        except BrokenProcessPool as error:
            raise ConfigError(
                f"one of {self.count} worker processes ended, perhaps for want of memory; choose fewer --workers"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _begin(artifact: Path, category: str | None, roi: Path | None, threads: int, values: dict[str, Any]) -> None:
    """Make a worker."""
    global _predictor, _rois
    begin_child(threads, values)
    _predictor = load(artifact, "cpu", category=category)
    _rois = rois_for(_predictor.preprocess, roi)


def _score(
    samples: list[Sample], root: Path, skip_bad: bool, photos: bool
) -> list[ScoredImage | Skipped] | AdcoreError:
    model, preprocess, reader = _predictor.model, _predictor.preprocess, DatasetReader(root)
    reader.rois = _rois
    try:
        return list(score_each(model, preprocess, reader, samples, "cpu", skip_bad, photos=photos))
    except AdcoreError as error:
        return type(error)(str(error))  # without the tracebacks and causes, which need not be picklable
