"""DFKDE against scikit-learn's PCA and scipy's kernel density."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from adcore.testing import tiny_batches
from adcore.training.plan import Plan
from adcore.training.trainer import Trainer
from adm_memory.dfkde import DFKDE, log_density, scott_whitening
from scipy.stats import gaussian_kde
from sklearn.decomposition import PCA

SIZE = (32, 48)


def fitted(count: int, layer: str = "layer1", **config: object) -> DFKDE:
    model = DFKDE("resnet18", layer, "random", **config)
    Trainer(model, Plan(), tiny_batches(count, SIZE, 8), count).run()
    return model


@pytest.mark.parametrize("d", [1, 3])
def test_density_equals_scipys(d) -> None:
    points, queries = (
        torch.randn(n, d, dtype=torch.double, generator=torch.Generator().manual_seed(n)) for n in (50, 9)
    )
    density = log_density(queries, points, scott_whitening(points))
    np.testing.assert_allclose(density, gaussian_kde(points.numpy().T).logpdf(queries.numpy().T), rtol=1e-8)


def test_far_from_everything_the_density_still_orders() -> None:
    points = torch.randn(50, 2, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    near, far = log_density(torch.tensor([[1e3, 0], [2e3, 0]]).double(), points, scott_whitening(points))
    assert far < near < -1000  # both densities are 0 in floating point


@pytest.mark.parametrize(("count", "room"), [(24, 0), (72, 0), (72, 72 * 64)])  # only (72, 0) makes features again
def test_scores_equal_scipys_on_sklearns_components(count, room, monkeypatch) -> None:
    monkeypatch.setattr("adm_memory.dfkde.ROOM", room)
    model = fitted(count, n_components=4)
    images = torch.cat([batch.images for batch in tiny_batches(count, SIZE, 8)])
    query = tiny_batches(3, SIZE, 3, seed=3)[0].images
    with torch.no_grad():
        train, test = (model.features(x).double().numpy() for x in (images, query))
        prediction = model(query)
    pca = PCA(4, svd_solver="full").fit(train)
    points = pca.transform(train)
    longest = np.linalg.norm(points, axis=1).max()
    expected = -gaussian_kde(points.T / longest).logpdf(pca.transform(test).T / longest)
    assert prediction.anomaly_map is None
    assert model.points.shape == (count, 4)
    np.testing.assert_allclose(prediction.score, expected, rtol=1e-4, atol=1e-4)


def test_few_images_have_fewer_components() -> None:
    model = fitted(5)
    assert model.points.shape == (5, 4)
    assert model(tiny_batches(2, SIZE, 2, seed=3)[0].images).score.isfinite().all()
