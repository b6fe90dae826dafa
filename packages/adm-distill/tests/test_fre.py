"""FRE: the tied autoencoder against its definition and against PCA, and a short fit."""

import torch
from adcore import artifact as artifacts
from adcore.artifact import Artifact
from adcore.testing import fit_tiny, tiny_batches
from adm_distill.fre import TiedAutoencoder


def allocated(latent, length):
    autoencoder = TiedAutoencoder(latent)
    autoencoder.allocate(length)
    return autoencoder


def test_starts_as_a_projection():
    autoencoder = allocated(3, 8)
    features = torch.randn(5, 8)
    once = autoencoder(features)
    torch.testing.assert_close(autoencoder(once), once)
    assert (once - features).norm() > 0.1


def test_training_approaches_the_principal_subspace():
    torch.manual_seed(0)
    features = torch.randn(64, 3) @ torch.randn(3, 12) + 0.05 * torch.randn(64, 12)
    autoencoder = allocated(3, 12)
    optimizer = torch.optim.Adam(autoencoder.parameters(), lr=1e-2)

    def error():
        return (autoencoder(features) - features).square().sum(1).mean()

    start = error().item()
    for _ in range(600):
        optimizer.zero_grad()
        error().backward()
        optimizer.step()
    centred = features - features.mean(0)
    best = (torch.linalg.svdvals(centred)[3:] ** 2).sum() / 64
    rounding = 1e-4 * best  # training may end at the optimum itself
    assert best - rounding <= error() < 1.5 * best < 0.1 * start


def test_score_is_the_sum_of_the_map_and_the_fault_stands_out():
    model, summary, choice = fit_tiny(
        "fre-efficientnet-lite0", images=8, epochs=10, weights="random", layer="stride8", latent=8
    )
    assert summary.history[-1]["loss"] < summary.history[0]["loss"]
    [batch] = tiny_batches(4, choice.preprocess.output_size, 4, anomalous=True, seed=3)
    with torch.no_grad():
        prediction = model(batch.images)
        features = model.features(batch.images)
        errors = features - model.autoencoder(features.flatten(1)).view_as(features)
    torch.testing.assert_close(prediction.score, errors.square().flatten(1).sum(1))
    assert prediction.score[1::2].min() > prediction.score[0::2].max()


def test_the_size_of_the_autoencoder_comes_back_from_the_file(tmp_path):
    for size in (64, 96):
        model, _, choice = fit_tiny("fre-efficientnet-lite0", size, 2, 1, weights="random", latent=4)
        path = tmp_path / f"{size}.safetensors"
        artifacts.save(path, Artifact(model, choice.preprocess))
        loaded = artifacts.load(path).model
        assert loaded.autoencoder.weight.shape == (4, 112 * (size // 32) ** 2)
        assert torch.equal(loaded.autoencoder.weight, model.autoencoder.weight)
