"""PaDiM against a direct computation of its paper's formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from adcore.errors import TrainingError
from adcore.maps import gaussian_blur, upsample
from adcore.testing import tiny_batches
from adcore.training.plan import Plan
from adcore.training.trainer import Trainer
from adm_memory.padim import PaDiM

SIZE = (32, 48)


def fitted(count: int, n_features: int = 6, batch: int = 4) -> PaDiM:
    model = PaDiM("resnet18", ("layer2", "layer3"), "random", n_features)
    Trainer(model, Plan(), tiny_batches(count, SIZE, batch), count).run()
    return model


@pytest.mark.parametrize("count", [3, 12, 13, 40])  # fewer than features; just a buffer full; one more; several
def test_maps_equal_the_papers_formula(count) -> None:
    model = fitted(count)
    images = torch.cat([batch.images for batch in tiny_batches(count, SIZE, 4)])
    query = tiny_batches(2, SIZE, 2, seed=3)[0].images
    with torch.no_grad():
        train, test = (model.embed(x).double().flatten(2).permute(2, 0, 1).numpy() for x in (images, query))
        prediction = model(query)
    distances = np.empty((2, len(test)))
    for position, (x, q) in enumerate(zip(train, test, strict=True)):
        covariance = np.cov(x, rowvar=False) + 0.01 * np.eye(x.shape[1])
        delta = q - x.mean(0)
        distances[:, position] = np.sqrt(np.einsum("bd,de,be->b", delta, np.linalg.inv(covariance), delta))
    expected = gaussian_blur(upsample(torch.tensor(distances).reshape(2, 4, 6), SIZE), 4.0)
    torch.testing.assert_close(prediction.anomaly_map.double(), expected, rtol=1e-4, atol=1e-4 * float(expected.max()))
    torch.testing.assert_close(prediction.score, prediction.anomaly_map.flatten(1).amax(1))


def test_batch_size_and_order_change_nothing_but_rounding() -> None:
    first, second = fitted(10, batch=1), fitted(10, batch=5)
    torch.testing.assert_close(first.mean, second.mean)
    torch.testing.assert_close(first.whitening, second.whitening, rtol=1e-4, atol=1e-4)


def test_one_image_is_too_few() -> None:
    with pytest.raises(TrainingError, match="at least 2 normal images"):
        fitted(1)


def test_the_channels_follow_the_seed() -> None:
    def channels(seed: int) -> list[int]:
        model = PaDiM("resnet18", ("layer2", "layer3"), "random", 20)
        Trainer(model, Plan(seed=seed), tiny_batches(2, SIZE, 2), 2).run()
        return model.channels.tolist()

    assert channels(1) == channels(1) != channels(2)


def test_n_features_by_backbone() -> None:
    assert PaDiM("resnet18", weights="random").n_features == 100
    assert PaDiM("wide_resnet50_2", weights="random").n_features == 550
    assert PaDiM("resnet18", ("layer1",), "random").n_features == 64  # no more than there are
