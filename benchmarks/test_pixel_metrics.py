"""All four pixel metrics of 100 maps of 256 x 256, beside libraries that compute one metric at a time, in one run.

`hatch run bench benchmarks/test_pixel_metrics.py -s` for the ratio to scikit-learn. The ratio to anomalib needs an environment
that has it: `PYTHONPATH=packages/adcore/src PARITY_PYTHON benchmarks/test_pixel_metrics.py`.
"""

import time

import numpy as np
from adcore.evaluation.pixel import pixel_metrics
from scipy.ndimage import gaussian_filter


def realistic_maps(n=100, size=(256, 256)):
    """Smooth maps, blobs as masks in half of the images (2.5 % of all pixels), anomalous pixels a bit higher."""
    rng = np.random.default_rng(0)
    maps, masks = [], []
    for i in range(n):
        mask = gaussian_filter(rng.standard_normal(size), 8) > (0.06 if i % 2 else np.inf)
        maps.append((gaussian_filter(rng.standard_normal(size), 4) + 0.05 * mask).astype(np.float32))
        masks.append(mask)
    return maps, masks


def best_of(n, function, *args):
    """Shortest of `n` runs in seconds, and the result."""
    seconds = []
    for _ in range(n):
        start = time.perf_counter()
        result = function(*args)
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


def sklearn_metrics(maps, masks):
    from sklearn.metrics import average_precision_score, roc_auc_score

    scores, labels = np.concatenate([m.ravel() for m in maps]), np.concatenate([m.ravel() for m in masks])
    return {
        "pixel_auroc": roc_auc_score(labels, scores),
        "pixel_aupr": average_precision_score(labels, scores),
    }


def anomalib_metrics(maps, masks):
    import torch
    from anomalib.data import ImageBatch
    from anomalib.metrics import AUPRO, AUROC

    maps, masks = torch.from_numpy(np.stack(maps)), torch.from_numpy(np.stack(masks))
    batch = ImageBatch(image=torch.zeros(len(maps), 3, *maps.shape[1:]), anomaly_map=maps, gt_mask=masks)
    values = {}
    for name, metric in {"aupro": AUPRO, "pixel_auroc": AUROC}.items():
        metric = metric(fields=["anomaly_map", "gt_mask"])
        metric.update(batch)
        values[name] = metric.compute().item()
    return values


def test_four_metrics_cost_less_than_half_of_two_of_scikit_learn(benchmark):
    maps, masks = realistic_maps()
    baseline, expected = best_of(1, sklearn_metrics, maps, masks)
    metrics = benchmark.pedantic(pixel_metrics, (maps, masks), rounds=3, warmup_rounds=1)
    ours = benchmark.stats.stats.min
    benchmark.extra_info["times faster than scikit-learn"] = round(baseline / ours, 1)
    print(
        f"\npixel metrics: {ours:.3f} s, scikit-learn's AUROC and AP {baseline:.3f} s: {baseline / ours:.1f} times faster"
    )
    for name, value in expected.items():
        assert abs(metrics[name] - value) < 1e-6
    assert ours <= baseline / 2


if __name__ == "__main__":
    data = realistic_maps()
    own, metrics = best_of(3, pixel_metrics, *data)
    peer, peer_metrics = best_of(2, anomalib_metrics, *data)
    print(f"adcore, four metrics: {own:.3f} s {metrics.values}")
    print(f"anomalib, AUPRO and AUROC: {peer:.3f} s {peer_metrics}: {peer / own:.1f} times slower")
