"""Scoring images: the one road that training-time evaluation, `evaluate` and `predict` share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adcore.data.dataset import ImageDataset, Item, Skipped, read_ahead, read_together
from adcore.data.samples import DatasetReader, Sample
from adcore.errors import DataError
from adcore.model import AnomalyModel
from adcore.preprocess import Preprocess

GPU_BATCH = 16


@dataclass
class ScoredImage:
    """One image with its raw result."""

    sample: Sample
    score: float
    anomaly_map: np.ndarray | None  # (h, w) float32, the size of the model's input
    mask: np.ndarray | None  # (h, w) bool; None: not known


@dataclass
class Scoring:
    """All scored images, what was left out and why, and how long it took."""

    images: list[ScoredImage] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)  # path, reason
    seconds: float = 0.0  # reading, preprocessing and model together

    @property
    def scores(self) -> np.ndarray:
        """(N,) raw scores."""
        return np.array([image.score for image in self.images], dtype=np.float32)

    @property
    def labels(self) -> np.ndarray:
        """(N,) labels, 0 normal and 1 anomalous."""
        return np.array([image.sample.label for image in self.images], dtype=np.int64)

    @property
    def ms_per_image(self) -> float | None:
        """Milliseconds from file to score; None without images."""
        return 1000 * self.seconds / len(self.images) if self.images else None


@torch.inference_mode()
def run_model(model: AnomalyModel, images: list[Tensor], device: torch.device | str) -> Iterator[tuple[float, Any]]:
    """(score, anomaly map as numpy or None) of each preprocessed image (3, H, W).

    On a CPU each image goes alone: libraries choose other summation orders for other batch sizes, and an image's score
    must not depend, not even in its last bit, on what it is scored with.
    """
    alone = torch.device(device).type == "cpu"
    for batch in [image[None] for image in images] if alone else [torch.stack(images)]:
        prediction = model(batch.to(device))
        maps = prediction.anomaly_map
        for i, score in enumerate(prediction.score.tolist()):
            yield score, None if maps is None else maps[i].float().cpu().numpy()


def score_samples(
    model: AnomalyModel,
    preprocess: Preprocess,
    reader: DatasetReader,
    samples: Iterable[Sample],
    device: torch.device | str = "cpu",
    skip_bad: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> Scoring:
    """Read, preprocess and score `samples`, in order.

    A file that cannot be read raises DataError, or with `skip_bad` is listed in `skipped`.
    """
    samples = list(samples)
    scoring, started = Scoring(), time.perf_counter()
    dataset = ImageDataset(samples, reader, preprocess)
    model.warm_up()
    if torch.device(device).type == "cpu":
        size, items = 1, read_together(dataset.fetch, range(len(dataset)))
    else:
        size, items = GPU_BATCH, read_ahead(map(dataset.fetch, range(len(dataset))), GPU_BATCH)
    for group in _groups(zip(samples, items, strict=True), size):
        for _, item in group:
            if isinstance(item, Skipped):
                if not skip_bad:
                    raise DataError(item.reason)
                scoring.skipped.append(asdict(item))
        good = [(sample, item) for sample, item in group if isinstance(item, Item)]
        results = run_model(model, [item.image for _, item in good], device) if good else ()
        for (sample, item), (score, anomaly_map) in zip(good, results, strict=True):
            mask = None if item.mask is None else item.mask.numpy()
            scoring.images.append(ScoredImage(sample, score, anomaly_map, mask))
        if progress:
            progress("score", len(scoring.images) + len(scoring.skipped), len(samples))
    scoring.seconds = time.perf_counter() - started
    return scoring


def _groups(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while group := list(islice(items, size)):
        yield group
