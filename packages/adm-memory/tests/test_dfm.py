"""DFM against scikit-learn's PCA and scipy's Gaussian."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from adcore.maps import upsample
from adcore.testing import tiny_batches
from adcore.training.plan import Plan
from adcore.training.trainer import Trainer
from adm_memory.dfm import DFM
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA

SIZE = (64, 96)


def fitted(count: int = 12, batch: int = 4, **config: object) -> DFM:
    model = DFM("resnet18", "layer2", "random", **config)
    Trainer(model, Plan(), tiny_batches(count, SIZE, batch), count).run()
    return model


def features(model: DFM) -> tuple[np.ndarray, np.ndarray, torch.Tensor]:
    """Of the training images (n, D) and of the query (2, D), and the query."""
    images = torch.cat([batch.images for batch in tiny_batches(12, SIZE, 4)])
    query = tiny_batches(2, SIZE, 2, anomalous=True, seed=3)[0].images
    with torch.no_grad():
        train, test = (model.features(x).flatten(1).double().numpy() for x in (images, query))
    return train, test, query


@pytest.mark.parametrize("variance", [0.5, 0.97])
def test_reconstruction_error_of_sklearns_pca(variance) -> None:
    model = fitted(variance=variance)
    train, test, query = features(model)
    pca = PCA(variance, svd_solver="full").fit(train)
    assert len(model.variances) == pca.n_components_
    error = torch.tensor((test - pca.inverse_transform(pca.transform(test))) ** 2).view(2, 128, 2, 3).sum(1)
    with torch.no_grad():
        prediction = model(query)
    torch.testing.assert_close(prediction.score.double(), error.sum((1, 2)), rtol=1e-4, atol=0)
    torch.testing.assert_close(
        prediction.anomaly_map.double(), upsample(error, SIZE), rtol=1e-4, atol=1e-5 * float(error.max())
    )


def test_likelihood_of_scipys_gaussian() -> None:
    model = fitted(score="nll", variance=0.9)
    train, test, query = features(model)
    pca = PCA(0.9, svd_solver="full").fit(train)
    code = pca.transform(train)
    expected = -multivariate_normal(code.mean(0), np.cov(code, rowvar=False, bias=True)).logpdf(pca.transform(test))
    with torch.no_grad():
        prediction = model(query)
    assert prediction.anomaly_map is None
    np.testing.assert_allclose(prediction.score, expected, rtol=1e-4)


def test_batch_size_changes_nothing() -> None:
    query = tiny_batches(2, SIZE, 2, seed=3)[0].images
    with torch.no_grad():
        torch.testing.assert_close(fitted(batch=1)(query).score, fitted(batch=5)(query).score)


def test_a_second_fit_starts_anew() -> None:
    model = fitted()
    Trainer(model, Plan(), tiny_batches(12, SIZE, 4, seed=9), 12).run()
    anew = DFM("resnet18", "layer2", "random")
    Trainer(anew, Plan(), tiny_batches(12, SIZE, 4, seed=9), 12).run()
    assert torch.equal(model.directions, anew.directions)
