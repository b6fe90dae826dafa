"""Metrics on raw maps and scores, the same code for the peer and for us, so that a difference is the model's."""

from pathlib import Path

import numpy as np
from datasets import Item
from PIL import Image
from scipy import ndimage
from sklearn.metrics import roc_auc_score

MAX_FPR = 0.3  # the usual limit of AUPRO


def load_masks(items: list[Item], size: tuple[int, int]) -> np.ndarray:
    """(N, H, W) bool: each mask resized to `size` = (H, W) with nearest neighbour; no mask file means all False."""
    masks = np.zeros((len(items), *size), dtype=bool)
    for mask, item in zip(masks, items, strict=True):
        if item.mask is not None:
            with Image.open(item.mask) as image:
                mask[:] = np.asarray(image.convert("L").resize(size[::-1], Image.Resampling.NEAREST)) > 127
    return masks


def aupro(maps: np.ndarray, masks: np.ndarray, max_fpr: float = MAX_FPR) -> float:
    """Area under the per-region-overlap curve up to `max_fpr`, divided by it; exact, over every distinct threshold.

    maps (N, H, W) float, masks (N, H, W) bool. Bergmann et al., "The MVTec Anomaly Detection Dataset", 2021.
    """
    weights = np.zeros(masks.shape)  # each region's pixels carry 1 / size, so a region adds up to 1
    regions = 0
    for mask, weight in zip(masks, weights, strict=True):
        labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
        sizes = np.bincount(labels.ravel())
        weight[mask] = 1.0 / sizes[labels[mask]]
        regions += count
    order = np.argsort(-maps.ravel(), kind="stable")
    values = maps.ravel()[order]
    overlap = np.cumsum(weights.ravel()[order]) / regions
    false_positive = np.cumsum(~masks.ravel()[order]) / np.count_nonzero(~masks)
    last_of_tie = np.append(values[1:] != values[:-1], True)
    fpr = np.append(0.0, false_positive[last_of_tie])
    pro = np.append(0.0, overlap[last_of_tie])
    inside = fpr <= max_fpr
    end = np.interp(max_fpr, fpr, pro)
    return float(np.trapezoid(np.append(pro[inside], end), np.append(fpr[inside], max_fpr)) / max_fpr)


def measure(scores: np.ndarray, maps: np.ndarray | None, items: list[Item]) -> dict[str, float | None]:
    """Image AUROC of `scores` (N,), and pixel AUROC and AUPRO of `maps` (N, H, W) where there are maps."""
    labels = np.array([item.anomalous for item in items])
    result: dict[str, float | None] = {"image_auroc": float(roc_auc_score(labels, scores))}
    if maps is None:
        return result | {"pixel_auroc": None, "aupro": None}
    masks = load_masks(items, maps.shape[1:])
    result["pixel_auroc"] = float(roc_auc_score(masks.ravel(), maps.ravel()))
    result["aupro"] = aupro(maps, masks)
    return result


def score_file(path: Path, items: list[Item]) -> dict[str, float | None]:
    """`measure` of a stored .npz with `scores` (N,) and, where the model has them, `maps` (N, H, W)."""
    with np.load(path, allow_pickle=False) as stored:
        return measure(stored["scores"], stored.get("maps"), items)
