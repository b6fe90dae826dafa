"""Pixel metrics: equal to scikit-learn, and AUPRO to a threshold-by-threshold, region-by-region count."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from adcore.errors import DataError
from adcore.evaluation.pixel import pixel_metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import gaussian_filter
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score


def flood_regions(mask: np.ndarray) -> list[np.ndarray]:
    """8-connected regions by flood fill, without scipy."""
    todo, regions = {tuple(p) for p in np.argwhere(mask)}, []
    while todo:
        region, front = np.zeros_like(mask), [todo.pop()]
        while front:
            y, x = front.pop()
            region[y, x] = True
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & todo
            todo -= near
            front += near
        regions.append(region)
    return regions


def brute_aupro(maps, masks) -> dict[str, float]:
    """AUPRO at both limits by its definition: one point for each threshold, trapezoids, linear interpolation at the limit."""
    regions = [(map_, region) for map_, mask in zip(maps, masks, strict=True) for region in flood_regions(mask)]
    normal = np.concatenate([map_[~mask] for map_, mask in zip(maps, masks, strict=True)])
    curve = [(0.0, 0.0)]
    for t in sorted({float(v) for m in maps for v in m.ravel()}, reverse=True):
        pro = np.mean([(map_[region] >= t).mean() for map_, region in regions])
        curve.append(((normal >= t).mean(), pro))
    return {"aupro": brute_area(curve, 0.3), "aupro_5": brute_area(curve, 0.05)}


def brute_area(curve, limit) -> float:
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(curve):
        if x1 > limit:
            if x0 >= limit:
                break
            y1 = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            x1 = limit
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


def realistic(n=6, size=(48, 40), ties=False):
    """Smooth maps, blobs as masks (some images normal), anomalous pixels a bit higher."""
    rng = np.random.default_rng(3)
    masks = [gaussian_filter(rng.standard_normal(size), 3) > 0.12 * (1 + 9 * (i % 3 == 0)) for i in range(n)]
    maps = [(gaussian_filter(rng.standard_normal(size), 2) + 0.1 * mask).astype(np.float32) for mask in masks]
    return [np.round(m, 1) if ties else m for m in maps], masks


@pytest.mark.parametrize("ties", [False, True])
def test_equal_to_scikit_learn_and_to_brute_force(ties):
    maps, masks = realistic(ties=ties)
    assert sum(not m.any() for m in masks) >= 2  # normal images count too
    scores, labels = np.concatenate([m.ravel() for m in maps]), np.concatenate([m.ravel() for m in masks])
    precision, recall, _ = precision_recall_curve(labels, scores)
    metrics = pixel_metrics(maps, masks)
    assert metrics["pixel_auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)
    assert metrics["pixel_aupr"] == pytest.approx(average_precision_score(labels, scores), abs=1e-9)
    assert metrics["pixel_f1_max"] == pytest.approx(
        np.max(2 * precision * recall / (precision + recall + 1e-30)), abs=1e-9
    )
    expected = brute_aupro(maps, masks)
    assert {key: metrics[key] for key in expected} == pytest.approx(expected, abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(
    hnp.arrays(np.int8, (2, 5, 6), elements=st.integers(-4, 4)),  # few values: ties between and within both classes
    hnp.arrays(bool, (2, 5, 6)).filter(lambda m: m.any() and not m.all()),
)
def test_ties_of_any_kind_are_one_step(maps, masks):
    maps = maps.astype(np.float32)
    metrics = pixel_metrics(maps, masks)
    assert metrics["pixel_auroc"] == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-9)
    assert metrics["pixel_aupr"] == pytest.approx(average_precision_score(masks.ravel(), maps.ravel()), abs=1e-9)
    expected = brute_aupro(maps, masks)
    assert {key: metrics[key] for key in expected} == pytest.approx(expected, abs=1e-9)


def test_small_regions_weigh_as_much_as_large_ones():
    mask = np.zeros((20, 20), bool)
    mask[2:12, 2:12] = True  # 100 pixels, found
    mask[17, 17] = True  # 1 pixel, missed
    map_ = np.where(mask, 1.0, 0.5).astype(np.float32)
    map_[17, 17] = 0.0
    assert pixel_metrics([map_], [mask])["aupro"] == pytest.approx(1 / 2)
    assert pixel_metrics([map_], [mask])["pixel_auroc"] == pytest.approx(100 / 101)


def test_diagonal_neighbours_are_one_region():
    mask = np.eye(3, dtype=bool)
    map_ = np.zeros((3, 3), np.float32)
    map_[0, 0] = 1.0  # a third of the one region is found at FPR 0, the rest ties with every normal pixel
    tied = 0.3 * (2 / 3) / 2  # the mean height of the tie's ramp up to FPR 0.3
    assert pixel_metrics([map_], [mask])["aupro"] == pytest.approx(1 / 3 + tied)


def test_perfect_and_inverted_maps():
    mask = np.zeros((8, 8), bool)
    mask[2:4, 2:5] = True
    perfect = pixel_metrics([mask.astype(np.float32)], [mask])
    assert perfect.values == pytest.approx(
        {"pixel_auroc": 1.0, "pixel_aupr": 1.0, "pixel_f1_max": 1.0, "aupro": 1.0, "aupro_5": 1.0}
    )
    assert max(perfect.values.values()) <= 1.0
    inverted = pixel_metrics([-mask.astype(np.float32)], [mask])
    assert inverted["pixel_auroc"] == inverted["aupro"] == 0.0


def test_images_of_different_sizes_and_torch_tensors():
    maps, masks = realistic()
    maps, masks = [maps[1], maps[2][:30, :25]], [masks[1], masks[2][:30, :25]]
    expected = pixel_metrics(maps, masks)
    assert pixel_metrics([torch.from_numpy(m) for m in maps], [torch.from_numpy(m) for m in masks]) == expected
    assert expected["aupro"] == pytest.approx(brute_aupro(maps, masks)["aupro"])
    assert maps[0].tolist() == realistic()[0][1].tolist()  # the caller's maps are not sorted in place


def test_undefined_is_null_with_the_reason():
    map_ = np.ones((4, 4), np.float32)
    for masks, reason in [
        ([np.zeros((4, 4), bool)], "no anomalous pixel"),
        ([np.ones((4, 4), bool)], "no normal pixel"),
    ]:
        metrics = pixel_metrics([map_], masks)
        assert set(metrics.values.values()) == {None}
        assert all(reason in text for text in metrics.reasons.values())
        assert len(metrics.reasons) == 5
    assert "no anomaly map" in pixel_metrics([], []).reasons["aupro"]


def test_bad_input_is_named():
    map_, mask = np.ones((4, 4), np.float32), np.eye(4, dtype=bool)
    bad = map_.copy()
    bad[1, 2] = np.nan
    with pytest.raises(DataError, match="anomaly map 1 holds NaN"):
        pixel_metrics([map_, bad], [mask, mask])
    with pytest.raises(DataError, match=r"\(4, 4\).*\(4, 5\)"):
        pixel_metrics([map_], [np.zeros((4, 5), bool)])
    with pytest.raises(DataError, match="2 anomaly maps but 1 masks"):
        pixel_metrics([map_, map_], [mask])


def test_result_is_plain_json():
    json.dumps(pixel_metrics(*realistic()).to_dict(), allow_nan=False)
