"""Pixel metrics from the sorted scores of anomalous pixels and of normal ones, exactly, in bounded memory.

Every curve below moves only where an anomalous pixel's score is passed: between two such scores false positives alone
grow. So all that is needed of the normal pixels is how many lie above each score of an anomalous one. They are sorted as
bare float32 values, BLOCK at a time, and a binary search counts them; no pixel has to carry its label or region through a
sort.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from adcore.errors import DataError
from adcore.evaluation.curves import PIXEL_METRICS, Steps, curve_metrics, region_weights
from adcore.evaluation.metrics import Metrics, as_array
from adcore.evaluation.planes import EachPlane

BLOCK = 1 << 26  # normal pixels that are sorted at a time
MOST_STEPS = 1 << 22  # different scores of anomalous pixels; of more, some stand for all


def pixel_metrics(
    maps: Sequence[Any], masks: Sequence[Any], seen: Sequence[np.ndarray | None] | None = None
) -> Metrics:
    """Pixel AUROC, AUPR (average precision), F1-max, AUPRO and AUPRO at 5 % over all images together, each in [0, 1].

    `maps`: (H, W) float32 each, raw, higher = more anomalous; `masks`: (H, W) bool each, True = anomalous; sizes may
    differ from image to image. Leave out images whose mask is not known. `seen`, (H, W) bool or None each: normal pixels
    outside of it do not count, and there are no others; None: all count. AUPRO: per-region overlap, the mean over all
    8-connected regions of the share that is found, integrated over the false positive rate up to 0.3 and divided by 0.3
    (Bergmann et al., IJCV 2021); `aupro_5` up to 0.05, as for MVTec AD 2.
    Memory: one image, BLOCK scores, 4 bytes for each anomalous pixel and 100 for each different score of one. Where these
    are more than MOST_STEPS, anomalous scores are rounded down to MOST_STEPS of them, evenly picked from the sorted ones.
    Raises DataError for sizes that differ and for NaN or Inf in a map.
    """
    if len(maps) != len(masks):
        raise DataError(f"{len(maps)} anomaly maps but {len(masks)} masks: leave out images whose mask is not known")
    if not len(maps):
        return Metrics.undefined(PIXEL_METRICS, "no anomaly map with a known mask")
    pixels = _Anomalous(maps, masks)
    pixels.pass_normal(_normal_blocks(maps, masks, seen))
    if not pixels.found.size or not pixels.normal:
        kind = "normal" if pixels.found.size else "anomalous"
        return Metrics.undefined(PIXEL_METRICS, f"no {kind} pixel in the masks")
    return curve_metrics(pixels.steps())


def defect_aupro(
    maps: Sequence[Any],
    masks: Sequence[Any],
    types: Sequence[str | None],
    seen: Sequence[np.ndarray | None] | None = None,
) -> dict[str, float]:
    """AUPRO of each defect type: its images and all normal ones, whose type is None; maps, masks and `seen` as above.

    A type without an anomalous pixel is left out. The pixels of the normal images are sorted once for all types.
    """
    found: dict[str, _Anomalous] = {}
    for name in sorted({one for one in types if one is not None}):
        chosen = _of_type(name, types, maps, masks, seen)
        pixels = _Anomalous(*chosen[:2])
        if pixels.found.size:
            pixels.pass_normal(_normal_blocks(*chosen))
            found[name] = pixels
    if found:
        for block in _normal_blocks(*_of_type(None, types, maps, masks, seen)):
            for pixels in found.values():
                pixels.pass_normal([block])
    return {name: curve_metrics(one.steps()).values["aupro"] for name, one in found.items() if one.normal}


class _Anomalous:
    """The anomalous pixels of some images by their score, and how many normal pixels lie above each score."""

    def __init__(self, maps: Sequence[Any], masks: Sequence[Any]) -> None:
        scores, inside = np.empty(0, np.float32), [i for i, mask in enumerate(masks) if as_array(mask).any()]
        parts = (map_[mask] for map_, mask in (_checked(i, maps[i], masks[i]) for i in inside))
        scores = np.unique(np.concatenate([scores, *parts]))
        picked = np.linspace(0, max(0, len(scores) - 1), min(len(scores), MOST_STEPS)).astype(np.int64)
        self.scores = scores[picked]  # ascending, the lowest is the first
        self.found = np.zeros(len(picked), np.int64)
        self.overlap, self.regions = np.zeros(len(picked)), 0
        for i in inside:
            map_, mask = _checked(i, maps[i], masks[i])
            step = np.searchsorted(self.scores, map_[mask], "right") - 1
            weights, count = region_weights(mask)
            np.add.at(self.found, step, 1)
            np.add.at(self.overlap, step, weights)
            self.regions += count
        self.above, self.from_here = np.zeros_like(self.found), np.zeros_like(self.found)
        self.normal = 0

    def pass_normal(self, blocks: Iterable[np.ndarray]) -> None:
        """Count sorted scores of normal pixels."""
        for block in blocks:
            self.above += block.size - np.searchsorted(block, self.scores, "right")
            self.from_here += block.size - np.searchsorted(block, self.scores, "left")
            self.normal += block.size

    def steps(self) -> Steps:
        """The curves; there is a normal and an anomalous pixel."""
        return Steps(self.found, self.overlap / self.regions, self.above, self.from_here, self.normal)


def _normal_blocks(
    maps: Sequence[Any], masks: Sequence[Any], seen: Sequence[np.ndarray | None] | None
) -> Iterator[np.ndarray]:
    """The scores of normal pixels, sorted, BLOCK and no more than one image at a time."""
    seen = seen or [None] * len(maps)
    parts, size = [], 0
    for number, (map_, mask, part) in enumerate(zip(maps, masks, seen, strict=True)):
        map_, mask = _checked(number, map_, mask)
        good = ~mask if part is None else part & ~mask
        parts.append(map_[good])
        size += parts[-1].size
        if size >= BLOCK:
            yield _sorted(parts)
            parts, size = [], 0
    if size:
        yield _sorted(parts)


def _sorted(parts: list[np.ndarray]) -> np.ndarray:
    scores = np.concatenate(parts)
    parts.clear()
    scores.sort()  # bare values: numpy sorts them with vector instructions, ten times faster than any argsort
    return scores


def _of_type(name: str | None, types: Sequence[str | None], *parts: Sequence[Any] | None) -> list[Sequence[Any] | None]:
    """Of each of `parts`, which may be None, what belongs to the images of one type."""
    chosen = [i for i, one in enumerate(types) if one == name]
    return [part.at(chosen) if isinstance(part, EachPlane) else part and [part[i] for i in chosen] for part in parts]


def _checked(number: int, map_: Any, mask: Any) -> tuple[np.ndarray, np.ndarray]:
    """Map and mask of image `number` as arrays; DataError for sizes that differ, and for NaN or Inf."""
    map_, mask = np.asarray(as_array(map_), np.float32), np.asarray(as_array(mask), bool)
    if map_.shape != mask.shape or map_.ndim != 2:
        raise DataError(
            f"anomaly map {number} is {map_.shape} but its mask {mask.shape}: both must be one (height, width)"
        )
    if not np.isfinite(map_).all():
        raise DataError(f"anomaly map {number} holds NaN or Inf; look for NaN in that image, or train again")
    return map_, mask
