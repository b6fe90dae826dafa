"""Scoring images: shared by evaluation after training, `evaluate` and `predict`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from adcore_runtime import drift
from adcore_runtime.roi import Roi
from adcore_runtime.tiles import stitched
from torch import Tensor

from adcore.batching import one_at_a_time
from adcore.data.dataset import ImageDataset, Item, Skipped
from adcore.data.read_ahead import read_ahead, read_together
from adcore.data.samples import NORMAL, DatasetReader, Sample
from adcore.data.tiles import cut
from adcore.errors import DataError
from adcore.evaluation.outputs import checked_prediction
from adcore.evaluation.planes import Keeper, Plane
from adcore.evaluation.pool import Pool, score_pool
from adcore.evaluation.previews import preview
from adcore.model import AnomalyModel, BatchModel
from adcore.preprocess import Preprocess

GPU_BATCH = 16
Progress = Callable[[str, int, int], None]  # description, done, total


@dataclass
class ScoredImage:
    """One image with its raw result."""

    sample: Sample
    score: float
    # of many large images a Plane may lie in a file: each access reads it anew
    anomaly_map: np.ndarray | None = Plane()  # (h, w) float32, the size of the model's input  # noqa: RUF009
    mask: np.ndarray | None = Plane()  # (h, w) bool; None: not known  # noqa: RUF009
    photo: np.ndarray | None = None  # (H, W) uint8, the decoded image in gray, where it was asked for
    size: tuple[int, int] = (0, 0)  # height and width of the decoded image
    input: Tensor | None = field(default=None, repr=False)  # (C, h, w), where it was asked for
    preview: bytes | None = field(default=None, repr=False)  # a small JPEG, where it was asked for
    statistics: dict[str, float] = field(default_factory=dict, repr=False)  # for drift, where they were asked for
    roi: Roi | None = None  # its own region of interest, where each image has one
    seen: np.ndarray | None = Plane(optional=True)  # (h, w) bool: the pixels that count; None: all  # noqa: RUF009

    @property
    def values(self) -> np.ndarray | None:
        """(N,) or (h, w): the map's values that count; None without a map."""
        anomaly_map, seen = self.anomaly_map, self.seen
        return anomaly_map if seen is None or anomaly_map is None else anomaly_map[seen]


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
def run_model(
    model: AnomalyModel,
    images: list[Tensor],
    device: torch.device | str,
    names: Sequence[str],
    seen: Sequence[np.ndarray | None] = (),
) -> Iterator[tuple[float, np.ndarray | None]]:
    """(score, anomaly map (h, w) float32 or None) of each preprocessed image (3, h, w), checked; `names` are for errors.

    `seen` of each: the pixels (h, w) bool that count, None or left out where all do. On a CPU each image is scored alone, see
    `adcore.batching`, or in the model's own groups; so are images of which different pixels count.
    """
    seen = seen or [None] * len(images)
    size = model.group if one_at_a_time(device) else len(images)
    if any(one is not seen[0] for one in seen):
        size = 1
    for start in range(0, len(images), size):
        batch = torch.stack(images[start : start + size]).to(device)
        prediction = checked_prediction(model, batch, names[start : start + size], seen=seen[start])
        maps = prediction.anomaly_map
        for i, score in enumerate(prediction.score.tolist()):
            yield score, None if maps is None else maps[i].cpu().numpy()


def score_image(
    model: AnomalyModel,
    inputs: Tensor,
    preprocess: Preprocess,
    device: torch.device | str,
    name: str,
    progress: Progress | None = None,
    seen: np.ndarray | None = None,
) -> tuple[float, np.ndarray | None]:
    """Score and anomaly map (h, w) float32 or None of what `prepare` gives for one image called `name`.

    With tiles the map is stitched from theirs, and the score is the highest of a tile; no more than a group of tiles is in
    memory at once. `seen` (h, w) bool: the pixels that count; tiles without one are left out. `progress` is told the tiles that
    are done.
    """
    if preprocess.tile is None:
        ((score, anomaly_map),) = run_model(model, [inputs], device, [name], [seen])
        return score, anomaly_map
    plane = tuple(inputs.shape[-2:])
    size, tiles, done = model.group if one_at_a_time(device) else GPU_BATCH, preprocess.tiles(plane), 0

    def results() -> Iterator[tuple[float, np.ndarray | None]]:
        nonlocal done
        for group in _groups(iter(tiles), size):
            parts = [None if seen is None else seen[tile] for tile in group]
            kept = [i for i, part in enumerate(parts) if part is None or part.any()]
            images, chosen = [cut(preprocess, inputs, group[i]) for i in kept], [parts[i] for i in kept]
            found = run_model(model, images, device, [name] * len(kept), chosen)
            for i in range(len(group)):
                yield next(found) if i in kept else (-np.inf, None)
            done += len(group)
            if progress:
                progress("tiles", done, len(tiles))

    score, anomaly_map = stitched(plane, preprocess.tile, preprocess.tile_overlap, results())
    if seen is not None and anomaly_map is not None:
        anomaly_map[~seen] = anomaly_map[seen].min()
    return score, anomaly_map


def score_each(
    model: AnomalyModel,
    preprocess: Preprocess,
    reader: DatasetReader,
    samples: Iterable[Sample],
    device: torch.device | str = "cpu",
    skip_bad: bool = False,
    photos: bool = False,
    inputs: bool = False,
    progress: Progress | None = None,
) -> Iterator[ScoredImage | Skipped]:
    """Read, preprocess and score `samples`, in order, as they are asked for; no more than a group is in memory at once.

    A BatchModel reads all images before the first one comes, and reads them anew for each pass that it makes.
    A file that cannot be read raises DataError, or with `skip_bad` comes as a Skipped. `photos` keeps the decoded images,
    `inputs` the preprocessed ones. `progress` is told the tiles of each image that are done.
    """
    samples = list(samples)
    dataset = ImageDataset(samples, reader, preprocess, photos=photos)
    model.warm_up()
    if isinstance(model, BatchModel):
        for scored in score_pool(model, Pool(dataset, device, skip_bad)):
            if isinstance(scored, Skipped):
                yield scored
                continue
            item, prediction = scored
            maps = prediction.anomaly_map
            yield _scored(item, prediction.score.item(), None if maps is None else maps[0].cpu().numpy(), inputs)
        return
    if preprocess.tile:  # one image at a time, and none is kept while the next is read: it may be large

        def alone(item: Item | Skipped) -> ScoredImage | Skipped:
            if isinstance(item, Skipped):
                if not skip_bad:
                    raise DataError(item.reason)
                return item
            name = str(item.sample.image_path)
            result = score_image(model, item.image, preprocess, device, name, progress, item.seen)
            return _scored(item, *result, inputs)

        for index in range(len(dataset)):
            yield alone(dataset.fetch(index))
        return
    if one_at_a_time(device):
        size, items = model.group, read_together(dataset.fetch, range(len(dataset)))
    else:
        size, items = GPU_BATCH, read_ahead(map(dataset.fetch, range(len(dataset))), GPU_BATCH)
    for group in _groups(zip(samples, items, strict=True), size):
        bad = [item for _, item in group if isinstance(item, Skipped)]
        if bad and not skip_bad:
            raise DataError(bad[0].reason)
        good = [item for _, item in group if isinstance(item, Item)]
        names, seen = [str(item.sample.image_path) for item in good], [item.seen for item in good]
        results = run_model(model, [item.image for item in good], device, names, seen)
        for _, item in group:
            if isinstance(item, Skipped):
                yield item
                continue
            score, anomaly_map = next(results)
            yield _scored(item, score, anomaly_map, inputs)


def _scored(item: Item, score: float, anomaly_map: np.ndarray | None, inputs: bool) -> ScoredImage:
    mask, kept = None if item.mask is None else item.mask.numpy(), item.image if inputs else None
    return ScoredImage(item.sample, score, anomaly_map, mask, item.photo, item.size, kept, roi=item.roi, seen=item.seen)


def score_samples(
    model: AnomalyModel,
    preprocess: Preprocess,
    reader: DatasetReader,
    samples: Iterable[Sample],
    device: torch.device | str = "cpu",
    skip_bad: bool = False,
    progress: Progress | None = None,
    previews: bool = False,
    statistics: bool = False,
    folder: Path | None = None,
    maps: bool = True,
) -> Scoring:
    """All of `score_each`; what was skipped is listed in `skipped`.

    `previews`: small photographs for the report; `statistics`: of the normal images, for drift. Maps and masks that memory
    does not hold (see `adcore.evaluation.planes`) lie in a file in `folder` without a name; `maps=False` keeps none.
    """
    samples, keeper = list(samples), Keeper(folder)
    scoring, started = Scoring(), time.perf_counter()
    for one in score_each(model, preprocess, reader, samples, device, skip_bad, inputs=previews or statistics):
        if isinstance(one, Skipped):
            scoring.skipped.append(asdict(one))
        else:
            if one.input is not None:
                paused = time.perf_counter()
                if previews:
                    one.preview = preview(one.input, preprocess)
                if statistics and one.sample.label == NORMAL:
                    one.statistics = drift.statistics(
                        preprocess.without_normalization(one.input), one.score, one.anomaly_map
                    )
                one.input = None
                started += time.perf_counter() - paused  # it is no part of scoring
            if not maps:
                one.anomaly_map = one.mask = one.seen = None
            keeper.keep(one, ("anomaly_map", "mask", "seen") if one.roi else ("anomaly_map", "mask"))
            scoring.images.append(one)
        if progress:
            progress("score", len(scoring.images) + len(scoring.skipped), len(samples))
    scoring.seconds = time.perf_counter() - started
    return scoring


def without_maps(scoring: Scoring) -> Scoring:
    """The same images without maps and masks."""
    images = [replace(image, anomaly_map=None, mask=None, seen=None) for image in scoring.images]
    return replace(scoring, images=images)


def _groups(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while group := list(islice(items, size)):
        yield group
