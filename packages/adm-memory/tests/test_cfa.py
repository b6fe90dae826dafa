"""CFA against a direct computation of its paper's formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from adcore.errors import ConfigError
from adcore.maps import gaussian_blur, upsample
from adcore.testing import tiny_batches
from adcore.training.plan import Plan
from adcore.training.trainer import Trainer
from adm_memory.cfa import ALPHA, CFA, NU, hypersphere_loss
from adm_memory.neighbours import NearestNeighbours

SIZE = (32, 48)


def fitted(epochs: int = 1, **config: object) -> CFA:
    model = CFA("resnet18", ("layer1", "layer2"), "random", **config)
    Trainer(model, Plan(epochs=epochs, seed=1), tiny_batches(6, SIZE, 2), 6).run()
    return model.eval()


@pytest.mark.parametrize(("k", "j"), [(3, 3), (1, 4), (2, 0)])
@pytest.mark.parametrize("radius", [1e-5, 1.6])  # the large one: some hinges of both kinds are open, others closed
def test_loss_and_gradient_equal_the_dense_formula(k, j, radius) -> None:
    g = torch.Generator().manual_seed(0)
    patches, bank = (torch.randn(n, 4, dtype=torch.double, generator=g) for n in (60, 30))
    dense, sparse = patches.clone().requires_grad_(), patches.clone().requires_grad_()
    squared = (dense[:, None] - bank).square().sum(2).topk(k + j, largest=False).values
    expected = F.relu(squared[:, :k] - radius**2).mean() / NU
    if j:
        expected = expected + F.relu(radius**2 - squared[:, k:] - ALPHA).mean() / NU
    expected.backward()
    loss = hypersphere_loss(sparse, bank, *NearestNeighbours(bank).query(patches, k + j), k, radius)
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(sparse.grad, dense.grad, rtol=1e-5, atol=1e-8)


def test_the_bank_averages_described_features_of_each_position() -> None:
    model = CFA("resnet18", ("layer1", "layer2"), "random", gamma_d=2)
    trainer = Trainer(model, Plan(), tiny_batches(6, SIZE, 4), 6)  # batches of 4 and 2: every image counts the same
    model.on_fit_start(trainer.fit)
    images = torch.cat([batch.images for batch in tiny_batches(6, SIZE, 4)])
    with torch.no_grad():
        expected = model.descriptor(model.features(images)).mean(0).flatten(1).t()
    assert expected.shape == (8 * 12, 96)
    torch.testing.assert_close(model.memory_bank, expected, rtol=1e-4, atol=1e-5)


def test_clusters_make_a_smaller_bank() -> None:
    assert fitted(gamma_c=4).memory_bank.shape == (8 * 12 // 4, 192)


def test_maps_equal_the_papers_formula() -> None:
    model = fitted()
    query = tiny_batches(2, SIZE, 2, anomalous=True, seed=3)[0].images
    with torch.no_grad():
        patches = model.descriptor(model.features(query)).double().flatten(2).transpose(1, 2)  # (B, L, d)
        prediction = model(query)
    nearest = torch.cdist(patches, model.memory_bank.double()).topk(3, largest=False).values
    scores = nearest[..., 0] * (-nearest[..., 0]).exp() / (-nearest).exp().sum(-1)
    expected = gaussian_blur(upsample(scores.view(2, 8, 12), SIZE), 4.0)
    torch.testing.assert_close(prediction.anomaly_map.double(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(prediction.score, prediction.anomaly_map.flatten(1).amax(1))


def test_training_draws_normal_patches_to_the_bank() -> None:
    def mean_distance(model: CFA) -> float:
        with torch.no_grad():
            patches = model.descriptor(model.features(tiny_batches(6, SIZE, 6)[0].images))
        return float(model.search(patches.permute(0, 2, 3, 1).flatten(0, 2), 1)[0].mean())

    torch.manual_seed(0)
    first = fitted(1)
    torch.manual_seed(0)
    assert mean_distance(fitted(20)) < 0.9 * mean_distance(first)


def test_too_few_dimensions() -> None:
    with pytest.raises(ConfigError, match="gamma_d 999"):
        CFA("resnet18", weights="random", gamma_d=999)
