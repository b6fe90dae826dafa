"""CFlow: position encoding, likelihood, fibres and map against what the paper says."""

import math

import pytest
import torch
from adcore.maps import upsample
from adcore.testing import fit_tiny, tiny_batches
from adcore.training.plan import Plan
from adm_flow.cflow import CFlow, build_decoder, positional_encoding


@pytest.fixture(scope="module")
def model() -> CFlow:
    return fit_tiny("cflow", weights="random", coupling_blocks=2)[0]


def test_position_encoding_is_sines_of_column_then_row():
    encoding = positional_encoding(8, height=3, width=5)
    assert encoding.shape == (8, 3, 5)
    for y in range(3):
        for x in range(5):
            expected = [wave(at / 10000 ** (i / 4)) for at in (x, y) for i in (0, 2) for wave in (math.sin, math.cos)]
            torch.testing.assert_close(encoding[:, y, x], torch.tensor(expected))


def test_decoder_inverts_and_counts_volume(randomise, log_det):
    torch.manual_seed(0)
    decoder = randomise(build_decoder(5, condition=4, blocks=3, clamp=1.9)).double()
    x, condition = torch.randn(3, 5, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    z, volume = decoder(x, [condition])
    torch.testing.assert_close(decoder(z, [condition], rev=True)[0], x)
    for i in range(3):
        torch.testing.assert_close(
            volume[i : i + 1], log_det(lambda s, i=i: decoder(s, [condition[i : i + 1]])[0], x[i : i + 1])
        )


def test_vectors_keep_their_place(model):
    features = torch.randn(2, 7, 3, 4)
    vectors, condition = model.vectors(features)
    encoding = positional_encoding(128, 3, 4)
    for b, y, x in [(0, 0, 0), (0, 2, 1), (1, 1, 3)]:
        index = (b * 3 + y) * 4 + x
        assert torch.equal(vectors[index], features[b, :, y, x])
        assert torch.equal(condition[index], encoding[:, y, x])


def test_log_likelihood_is_gaussian_with_volume_per_dimension(model):
    vectors, condition = model.vectors(torch.randn(1, 128, 3, 3))
    with torch.no_grad():
        z, volume = model.decoders[0](vectors, [condition])
        expected = (torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1) + volume) / 128
        torch.testing.assert_close(model.log_likelihood(0, vectors, condition), expected)


@pytest.mark.parametrize(("fiber_size", "fibers"), [(64, 2), (50, 2), (1000, 1)])
def test_every_vector_is_in_one_fibre(monkeypatch, fiber_size, fibers):
    """128 vectors of one 8 x 8 map of two images; what is over goes to the last fibre, as it would be a poor estimate alone."""
    model = CFlow(layers=("layer2",), weights="random", coupling_blocks=1, fiber_size=fiber_size)
    seen = []
    original = model.log_likelihood

    def record(layer, vectors, condition):
        seen.append(vectors)
        return original(layer, vectors, condition)

    monkeypatch.setattr(model, "log_likelihood", record)
    batch = tiny_batches(2, (64, 64), 2)[0]
    losses = [update.loss for update in model.training_step(batch, 0)]
    assert len(losses) == fibers == len(seen)
    assert min(len(vectors) for vectors in seen) >= min(fiber_size, 128)
    every, expected = torch.cat(seen), model.vectors(model.features(batch.images)[0])[0]
    assert not torch.equal(every, expected)  # shuffled
    assert torch.equal(every.sort(0).values, expected.sort(0).values)


def test_a_fibre_moves_only_its_own_decoder():
    model = CFlow(weights="random", coupling_blocks=1).train()
    optimizer = model.configure_optimizers(Plan())["main"].optimizer
    before = [p.clone() for p in model.decoders[1].parameters()]
    update = next(model.training_step(tiny_batches(2, (64, 64), 2)[0], 0))
    update.loss.backward()
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, model.decoders[1].parameters(), strict=True))


def test_map_and_score_equal_the_formula(model, tiny_batch):
    with torch.no_grad():
        prediction = model(tiny_batch.images)
        expected = 0.0
        for log_p, best in zip(model.log_likelihoods(tiny_batch.images), model.reference, strict=True):
            expected = expected + 1 - upsample((log_p - best).exp(), (64, 64), align_corners=True)
    torch.testing.assert_close(prediction.anomaly_map, expected)
    assert torch.equal(prediction.score, prediction.anomaly_map.flatten(1).max(1).values)


def test_reference_is_the_best_of_the_training_images(model):
    images = torch.cat([b.images for b in tiny_batches(4, (64, 64), 2)])
    with torch.no_grad():
        best = [log_p.max() for log_p in model.log_likelihoods(images)]
    torch.testing.assert_close(model.reference, torch.stack(best))


def test_likelihood_rises_in_training():
    _, summary, _ = fit_tiny("cflow", epochs=4, weights="random", coupling_blocks=2)
    losses = [epoch["loss"] for epoch in summary.history]
    assert losses[-1] < losses[0]
