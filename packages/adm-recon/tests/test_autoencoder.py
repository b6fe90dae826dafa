"""The autoencoder reconstructs what it saw, and points at what it did not see."""

import pytest
import torch
from adcore.errors import ConfigError
from adcore.registry import create_model
from adcore.testing.tiny import fit_tiny, tiny_images


@pytest.mark.parametrize("loss", [pytest.param("ssim", marks=pytest.mark.slow), "mse"])
def test_map_is_brightest_where_the_image_was_never_seen(loss):
    model, summary, _ = fit_tiny("autoencoder", images=16, epochs=40, width=8, latent=16, loss=loss)
    assert summary.history[-1]["loss"] < 0.8 * summary.history[0]["loss"]
    images = tiny_images(4, (64, 64), seed=3)
    faulty = images.clone()
    faulty[..., 20:36, 20:36] = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        clean, prediction = model(images), model(faulty)
    assert (prediction.score > clean.score).all()
    peak = prediction.anomaly_map.flatten(1).argmax(1)
    rows, columns = peak // 64, peak % 64
    assert ((rows > 14) & (rows < 42) & (columns > 14) & (columns < 42)).all()


def test_a_perfect_reconstruction_has_no_residual():
    model = create_model("autoencoder", width=4)
    images = torch.rand(2, 3, 64, 64)
    model.encoder, model.decoder = torch.nn.Identity(), torch.nn.Identity()
    assert model.residual(images).abs().max() < 1e-5


def test_any_image_size_that_is_a_multiple_of_32():
    model = create_model("autoencoder", width=4).eval()
    model.fitted = True
    assert model(torch.rand(1, 3, 64, 96)).anomaly_map.shape == (1, 64, 96)
    with pytest.raises(ConfigError, match=r"multiples of 32, got 100 x 64; try 96 x 64"):
        model(torch.rand(1, 3, 100, 64))
