"""Pixel metrics in the size of the original images, in the memory of one image."""

from __future__ import annotations

import numpy as np
from adcore_runtime.geometry import enlarged

from adcore.data.samples import NORMAL, DatasetReader
from adcore.evaluation.curves import PIXEL_METRICS, curve_metrics, steps_of_levels
from adcore.evaluation.metrics import Metrics
from adcore.evaluation.score import ScoredImage, Scoring
from adcore.preprocess import Preprocess

LEVELS = 1 << 20  # values of a map that are told apart, evenly spaced from the lowest to the highest
STRIP = 1 << 20  # pixels that are looked up at a time


def full_size_metrics(scoring: Scoring, reader: DatasetReader, preprocess: Preprocess) -> Metrics:
    """PIXEL_METRICS on original pixels: maps are enlarged bilinearly, masks stay as they were drawn.

    Masks are read again, one at a time, and pixels counted by the level of their value, of which there are LEVELS: the
    memory is that of one image and 50 MB, however many there are. What a crop, a fixed region or a region of interest leaves
    out does not count.
    """
    known = [image for image in scoring.images if image.anomaly_map is not None and image.mask is not None]
    if not known:
        return Metrics.undefined(PIXEL_METRICS, "no anomaly map with a known mask")
    ends = [(float(one.min()), float(one.max())) for one in (image.anomaly_map for image in known)]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    scale = (LEVELS - 1) / max(high - low, np.finfo(np.float32).tiny)
    normal, found, overlap = np.zeros(LEVELS, np.int64), np.zeros(LEVELS, np.int64), np.zeros(LEVELS)
    regions = 0
    for image in known:
        anomaly_map, frame = image.anomaly_map, preprocess.of(image.roi).frame(*image.size)
        rows, columns = frame.shown(anomaly_map.shape)
        counts = frame.roi.mask[rows, columns] if frame.roi else None
        labels, count = _regions(image, reader, rows, columns, counts)
        if not labels.size:  # the crop left nothing of it
            continue
        weights = 1 / np.maximum(np.bincount(labels.ravel(), minlength=1), 1)  # of a pixel of each region
        height = max(1, STRIP // labels.shape[1])
        for start in range(0, len(labels), height):
            shown = slice(None) if counts is None else counts[start : start + height]
            inside = labels[start : start + height][shown].ravel()
            part = slice(rows.start + start, rows.start + min(start + height, len(labels)))
            values = enlarged(anomaly_map, frame, part, columns)[shown].ravel()
            level = ((values - low) * scale).astype(np.int64).clip(0, LEVELS - 1)
            anomalous = inside > 0
            normal += np.bincount(level[~anomalous], minlength=LEVELS)
            if anomalous.any():
                found += np.bincount(level[anomalous], minlength=LEVELS)
                overlap += np.bincount(level[anomalous], weights[inside[anomalous]], LEVELS)
        regions += count
    if not normal.any() or not found.any():
        kind = "normal" if found.any() else "anomalous"
        return Metrics.undefined(PIXEL_METRICS, f"no {kind} pixel in the masks")
    return curve_metrics(steps_of_levels(normal, found, overlap, regions))


def _regions(
    image: ScoredImage, reader: DatasetReader, rows: slice, columns: slice, counts: np.ndarray | None
) -> tuple[np.ndarray, int]:
    """The number of each original pixel's region, 0 where it is normal: (R, C) int32; and how many regions there are.

    `counts` (R, C) bool: the pixels of the region of interest.
    """
    from scipy.ndimage import label

    mask = None if image.sample.label == NORMAL else reader.mask(image.sample)
    if mask is None:
        return np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.int32), 0
    inside = mask.numpy()[rows, columns]
    return label(inside if counts is None else inside & counts, structure=np.ones((3, 3)))
