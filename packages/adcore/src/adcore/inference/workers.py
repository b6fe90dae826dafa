"""Several processes that score the images of a folder on a CPU; one of them, the caller, writes what they found."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from adcore.child import begin_child
from adcore.data.dataset import Skipped
from adcore.data.image_io import image_size
from adcore.data.roi import Rois, rois_for
from adcore.data.samples import DatasetReader, Sample
from adcore.errors import AdcoreError, ConfigError, DataError
from adcore.evaluation.score import ScoredImage, score_each
from adcore.inference.predictor import Predictor, load
from adcore.preprocess import Preprocess
from adcore.settings import settings

CHUNK = 16  # images that a process gets at a time,
CHUNK_BYTES = 1 << 26  # or fewer, so that their results take no more than this; one image may take more
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

    def score(
        self, samples: list[Sample], root: Path, skip_bad: bool, photos: bool, preprocess: Preprocess
    ) -> Iterator[ScoredImage | Skipped]:
        """As `score_each` on a CPU, in the same order; AdcoreError of a worker, ConfigError where one was killed.

        `preprocess` of the model says how large its maps are.
        """
        threads = max(1, torch.get_num_threads() // self.count)
        pool = ProcessPoolExecutor(
            self.count,
            multiprocessing.get_context("spawn"),  # threads of torch do not survive a fork
            _begin,
            (self.artifact, self.category, self.roi, threads, asdict(settings())),
        )
        chunks = chunks_of(samples, lambda sample: result_bytes(sample, preprocess, photos))

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


def chunks_of(samples: Sequence[Sample], size_of: Callable[[Sample], int]) -> Iterator[list[Sample]]:
    """The samples in order, CHUNK at a time, or fewer where `size_of` them is more than CHUNK_BYTES; at least one."""
    chunk: list[Sample] = []
    total = 0
    for sample in samples:
        size = size_of(sample)
        if chunk and (len(chunk) == CHUNK or total + size > CHUNK_BYTES):
            yield chunk
            chunk, total = [], 0
        chunk.append(sample)
        total += size
    if chunk:
        yield chunk


def result_bytes(sample: Sample, preprocess: Preprocess, photo: bool) -> int:
    """Bytes of the map of an image, and with `photo` of the image in gray, as its header says.

    Where that does not say it, as in a TIFF, five for each byte of the file; 0 for what the worker will refuse.
    """
    size = image_size(sample.image_path)
    try:
        if size is None:
            return 5 * sample.image_path.stat().st_size
        rows, columns = preprocess.plane_size(*size)
    except (OSError, DataError):
        return 0
    return 4 * rows * columns + photo * size[0] * size[1]


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
