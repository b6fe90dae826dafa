"""U-Flow: the U-shaped flow, its maps, and the a contrario test, against brute force."""

import math

import pytest
import torch
from adcore.errors import ConfigError
from adcore.maps import upsample
from adcore.registry import create_model
from adcore.testing import fit_tiny
from adm_flow import vit
from adm_flow.uflow import UFlow, build_flow, log_tail
from scipy.stats import binom


@pytest.fixture(scope="module")
def model() -> UFlow:
    return fit_tiny("uflow-resnet18", weights="random", flow_steps=2)[0]


@pytest.mark.parametrize("channels", [[4, 6, 8], [3, 5, 11]])  # the second splits into parts that are not halves
def test_flow_inverts_and_keeps_every_number(randomise, channels):
    torch.manual_seed(0)
    flow = randomise(build_flow(channels, steps=2, clamp=2.0, hidden_ratio=1.0)).double()
    maps = [torch.randn(2, c, s, s, dtype=torch.float64) for c, s in zip(channels, (8, 4, 2), strict=True)]
    latents, volume = flow(maps)
    assert [z.shape[-1] for z in latents] == [2, 4, 8]
    assert sum(z[0].numel() for z in latents) == sum(x[0].numel() for x in maps)
    back, inverse = flow(latents, rev=True)
    for x, y in zip(maps, back, strict=True):
        torch.testing.assert_close(x, y)
    torch.testing.assert_close(volume, -inverse)


def test_log_det_is_that_of_autograd_over_all_scales(randomise, log_det):
    torch.manual_seed(0)
    channels, sides = [2, 3, 4], [4, 2, 1]
    flow = randomise(build_flow(channels, steps=2, clamp=2.0, hidden_ratio=1.0)).double()
    sizes = [c * s * s for c, s in zip(channels, sides, strict=True)]

    def whole(flat: torch.Tensor) -> torch.Tensor:
        parts = flat.split(sizes, 1)
        maps = [p.view(-1, c, s, s) for p, c, s in zip(parts, channels, sides, strict=True)]
        return torch.cat([z.flatten(1) for z in flow(maps)[0]], 1)

    x = torch.randn(2, sum(sizes), dtype=torch.float64)
    maps = [p.view(-1, c, s, s) for p, c, s in zip(x.split(sizes, 1), channels, sides, strict=True)]
    torch.testing.assert_close(flow(maps)[1], log_det(whole, x))


def test_a_defect_on_the_coarse_scale_reaches_the_finer_ones(model):
    """That is what the U is for."""
    maps = [norm(x) for norm, x in zip(model.norms, model.features(torch.rand(1, 3, 64, 64)), strict=True)]
    changed = [*maps[:-1], maps[-1] + torch.randn_like(maps[-1])]
    with torch.no_grad():
        for before, after in zip(model.flow(maps)[0], model.flow(changed)[0], strict=True):
            assert not torch.equal(before, after)


def test_loss_is_minus_the_gaussian_log_likelihood(model, tiny_batch, monkeypatch):
    """With a weight of 1, up to the constant d/2 log(2 pi), a mean over the images."""
    monkeypatch.setattr(model, "log_det_weight", 1.0)
    (update,) = model.training_step(tiny_batch, 0)
    with torch.no_grad():
        latents, volume = model.encode(tiny_batch.images)
        flat = torch.cat([z.flatten(1) for z in latents], 1)
        density = torch.distributions.Normal(0.0, 1.0).log_prob(flat).sum(1) + volume
        expected = -(density + 0.5 * flat.shape[1] * math.log(2 * math.pi)).mean()
    torch.testing.assert_close(update.loss.detach(), expected, rtol=1e-4, atol=1e-2)
    monkeypatch.setattr(model, "log_det_weight", 0.25)
    (weighted,) = model.training_step(tiny_batch, 0)
    torch.testing.assert_close(weighted.loss.detach(), expected + 0.75 * volume.mean(), rtol=1e-4, atol=1e-2)
    monkeypatch.setattr(model, "log_det_weight", None)
    (summed,) = model.training_step(tiny_batch, 0)
    more = (len(volume) - 1) * (expected + volume.mean())  # the other images' energies
    torch.testing.assert_close(summed.loss.detach(), expected + more, rtol=1e-4, atol=1e-2)


def test_likelihood_map_equals_the_formula(model, tiny_batch):
    with torch.no_grad():
        prediction = model(tiny_batch.images)
        latents, _ = model.encode(tiny_batch.images)
        expected = torch.ones(2, 64, 64)
        for z in latents:
            for i in range(2):
                energy = sum(z[i, c] ** 2 for c in range(z.shape[1])) / z.shape[1]
                expected[i] -= upsample(torch.exp(-energy / 2)[None], (64, 64))[0] / len(latents)
    torch.testing.assert_close(prediction.anomaly_map, expected)
    assert torch.equal(prediction.score, prediction.anomaly_map.flatten(1).max(1).values)


def test_tail_is_binomial_in_the_window():
    """Counted position by position: z² above the median of chi² is a fair coin."""
    torch.manual_seed(0)
    z = 1.3 * torch.randn(2, 5, 6, 7)
    tails = log_tail(z, window=5)
    padded = torch.nn.functional.pad(z, (2, 2, 2, 2), mode="reflect")
    for i, y, x in [(0, 0, 0), (0, 5, 6), (1, 2, 3), (1, 4, 0)]:
        count = (padded[i, :, y : y + 5, x : x + 5].abs() > 0.674489750196).sum().item() / 5
        expected = math.log10(sum(binom.pmf(k, 25, 0.5) for k in range(math.ceil(count), 26)))
        assert tails[i, y, x].item() == pytest.approx(expected, rel=1e-5)


def test_tail_of_nothing_and_of_everything():
    assert log_tail(torch.zeros(1, 3, 8, 8), 7).abs().max() == 0  # certain
    full = log_tail(torch.full((1, 3, 8, 8), 9.0), 7)
    torch.testing.assert_close(full, torch.full((1, 8, 8), 49 * math.log10(0.5)))  # all 49 of 49


def test_nfa_adds_scales_and_counts_tests(model):
    latents = [torch.randn(1, 4, s, s) for s in (16, 8, 4)]
    tails = [upsample(log_tail(z, w), (64, 64)) for z, w in zip(latents, (7, 3, 1), strict=True)]
    expected = math.log10(256 + 64 + 16) + sum(tails)
    torch.testing.assert_close(model.log_nfa(latents, (64, 64)), expected)


def test_unsupervised_threshold_spares_noise_and_finds_a_defect(model):
    """White noise is what the flow makes of a normal image; a patch of it four times as strong is a defect."""
    torch.manual_seed(0)
    latents = [torch.randn(4, 64, s, s) for s in (64, 32, 16)]
    assert not (model.log_nfa(latents, (256, 256)) < 0).any()
    for z in latents:
        side = z.shape[-1]
        z[:2, :, side // 4 : side // 2, side // 4 : side // 2] *= 4
    found = model.log_nfa(latents, (256, 256)) < 0
    inside = torch.zeros(256, 256, dtype=torch.bool)
    inside[64:128, 64:128] = True
    assert found[:2, 80:112, 80:112].all()
    assert not found[2:].any()
    assert not found[:2, :32].any()
    assert found[0][~inside].float().mean() < 0.1


def test_nfa_is_available_as_map_and_as_segmentation(tiny_batch):
    model = fit_tiny("uflow-resnet18", weights="random", flow_steps=1, anomaly_map="nfa")[0]
    with torch.no_grad():
        prediction = model(tiny_batch.images)
        latents, _ = model.encode(tiny_batch.images)
    torch.testing.assert_close(prediction.anomaly_map, -model.log_nfa(latents, (64, 64)))
    assert torch.equal(model.segment(tiny_batch.images), prediction.anomaly_map > 0)
    assert torch.equal(model.segment(tiny_batch.images, log_nfa=2.0), prediction.anomaly_map > -2)


def test_likelihood_rises_in_training():
    _, summary, _ = fit_tiny("uflow-resnet18", epochs=4, weights="random", flow_steps=2)
    losses = [epoch["loss"] for epoch in summary.history]
    assert losses[-1] < losses[0]


def test_image_sides_must_fit_the_coarsest_scale(model):
    with pytest.raises(ConfigError, match="multiples of 16"):
        model(torch.zeros(1, 3, 64, 72))


def test_layers_must_halve():
    with pytest.raises(ConfigError, match="halve"):
        UFlow("resnet18", layers=("layer1", "layer3"), weights="random")


def test_mcait_takes_two_networks(monkeypatch):
    """The real ones have 400 million parameters: stand-ins record what is asked for."""
    asked = []

    class Stub(torch.nn.Module):
        def __init__(self, backbone, layers, weights):
            super().__init__()
            asked.append((backbone, layers, weights))
            self.channels, self.strides = [{"cait_m48_448": 8, "cait_s24_224": 4}[backbone]], [16]

        def forward(self, images):
            return [torch.zeros(len(images), self.channels[0], images.shape[-2] // 16, images.shape[-1] // 16)]

    monkeypatch.setattr(vit, "TransformerFeatures", Stub)
    model = create_model("uflow-mcait", weights="random", flow_steps=1)
    assert asked == [("cait_m48_448", ("blocks.40",), "random"), ("cait_s24_224", ("blocks.20",), "random")]
    latents, _ = model.encode(torch.zeros(2, 3, 64, 96))
    assert [tuple(z.shape[-2:]) for z in latents] == [(4, 6), (2, 3)]
    assert all(isinstance(norm, torch.nn.Identity) for norm in model.norms)
    with pytest.raises(ConfigError, match="not a file"):
        create_model("uflow-mcait", weights="some.pth")
