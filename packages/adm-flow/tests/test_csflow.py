"""CS-Flow: features, cross-scale couplings, likelihood and map against autograd and brute force."""

import math

import pytest
import torch
import torchvision
from adcore.errors import ConfigError, WeightsError
from adcore.maps import upsample
from adcore.registry import create_model
from adcore.testing import fit_tiny, tiny_batches
from adm_flow.csflow import CrossConvolutions, CSFlow, StageFeatures, build_flow
from torch import nn

LITE0 = {"weights": "random", "coupling_blocks": 2, "cross_conv_channels": 8}


@pytest.fixture(scope="module")
def model() -> CSFlow:
    return fit_tiny("csflow-efficientnet-lite0", **LITE0)[0]


def flatten(maps: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([m.flatten(1) for m in maps], 1)


@pytest.fixture
def flow(randomise) -> nn.Module:
    torch.manual_seed(0)
    return randomise(build_flow(channels=3, blocks=2, hidden=4, clamp=3.0)).double()


def test_flow_inverts_and_begins_as_a_permutation(flow):
    maps = [torch.randn(2, 3, s, s, dtype=torch.float64) for s in (8, 4, 2)]
    latents, volume = flow(maps)
    back, inverse = flow(latents, rev=True)
    for x, y in zip(maps, back, strict=True):
        torch.testing.assert_close(x, y)
    torch.testing.assert_close(inverse, -volume)
    fresh = build_flow(channels=3, blocks=2, hidden=4, clamp=3.0).double()
    latents, volume = fresh(maps)
    assert not volume.any()
    for x, z in zip(maps, latents, strict=True):
        assert torch.equal(x.sort(1).values, z.sort(1).values)


def test_log_det_is_that_of_autograd_over_all_scales(flow, log_det):
    shapes = [(3, s, s) for s in (4, 2, 1)]
    x = torch.randn(2, sum(math.prod(s) for s in shapes), dtype=torch.float64)

    def maps_of(flat: torch.Tensor) -> list[torch.Tensor]:
        parts = flat.split([math.prod(s) for s in shapes], 1)
        return [p.reshape(-1, *s) for p, s in zip(parts, shapes, strict=True)]

    torch.testing.assert_close(flow(maps_of(x))[1], log_det(lambda s: flatten(flow(maps_of(s))[0]), x))


def test_only_neighbouring_scales_speak_in_one_subnet(randomise):
    subnet = randomise(CrossConvolutions(2, 4, 2, kernel_size=3))
    maps = [torch.randn(1, 2, s, s) for s in (8, 4, 2)]
    with torch.no_grad():
        before = subnet(maps)
        for i in range(3):
            changed = [m + 1 if j == i else m for j, m in enumerate(maps)]
            moved = [not torch.equal(a, b) for a, b in zip(before, subnet(changed), strict=True)]
            assert moved == [abs(i - j) <= 1 for j in range(3)]


def test_last_block_has_larger_kernels():
    kernels = [m.first[0].kernel_size for m in build_flow(4, 3, 2, 3.0).modules() if isinstance(m, CrossConvolutions)]
    assert kernels == [(3, 3)] * 4 + [(5, 5)] * 2


def test_b5_features_are_torchvisions_and_its_weights_file_fits(tmp_path):
    """The published weights come in torchvision's naming; features.6.8 is the end of timm's blocks.5."""
    torch.manual_seed(0)
    theirs = torchvision.models.efficientnet_b5().eval()
    for layer in theirs.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1), layer.running_var.uniform_(0.5, 1.5)
    state = theirs.state_dict()
    torch.save(state, tmp_path / "b5.pth")
    torch.save({k: v for k, v in state.items() if "num_batches_tracked" not in k}, tmp_path / "old.pth")
    images = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        expected = theirs.features[:7](images)
    for file in ("b5.pth", "old.pth"):
        features = StageFeatures("efficientnet_b5", "blocks.5", str(tmp_path / file))
        assert (features.channels, features.stride) == (304, 32)
        torch.testing.assert_close(features(images)[0], expected)
    torch.save({k: v for k, v in state.items() if not k.startswith("features.3")}, tmp_path / "part.pth")
    with pytest.raises(WeightsError, match="efficientnet_b5"):
        StageFeatures("efficientnet_b5", "blocks.5", str(tmp_path / "part.pth"))


def test_features_are_of_three_sizes_and_frozen():
    features = StageFeatures("tf_efficientnet_lite0", "blocks.4", "random")
    images = torch.rand(2, 3, 128, 192)
    maps = features.train()(images)
    assert [tuple(m.shape[-2:]) for m in maps] == [(8, 12), (4, 6), (2, 3)]
    torch.testing.assert_close(maps[1], features(images[..., ::2, ::2])[0])
    assert not features.net.training
    assert not maps[0].requires_grad


@pytest.mark.parametrize(("backbone", "layer"), [("tf_efficientnet_lite0", "layer3"), ("resnet18", "blocks.1")])
def test_wrong_backbone_or_layer_is_named(backbone, layer):
    with pytest.raises(ConfigError, match=r"blocks\.0 to blocks\.6|EfficientNet"):
        StageFeatures(backbone, layer, "random")


def test_loss_is_minus_the_gaussian_log_likelihood_a_dimension(model, tiny_batch, monkeypatch):
    """With a weight of 1, up to the constant log(2 pi) / 2, a mean over the images."""
    monkeypatch.setattr(model, "log_det_weight", 1.0)
    (update,) = model.training_step(tiny_batch, 0)
    with torch.no_grad():
        latents, volume = model.encode(tiny_batch.images)
        z = flatten(latents)
        density = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1) + volume
    expected = -density.mean() / z.shape[1] - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(update.loss.detach(), expected)
    images = len(volume)
    for weight, more in ((4.0, 3), (None, images - 1)):
        monkeypatch.setattr(model, "log_det_weight", weight)
        (weighted,) = model.training_step(tiny_batch, 0)
        torch.testing.assert_close(weighted.loss.detach(), expected - more * volume.mean() / z.shape[1])


def test_map_and_score_equal_the_formula(model, tiny_batch):
    with torch.no_grad():
        prediction = model(tiny_batch.images)
        latents, _ = model.encode(tiny_batch.images)
    expected = torch.ones(2, 64, 64)
    for z in latents:
        for i in range(2):
            expected[i] *= upsample((sum(c**2 for c in z[i]) / z.shape[1])[None], (64, 64))[0]
    torch.testing.assert_close(prediction.anomaly_map, expected)
    total = sum((z**2).sum((1, 2, 3)) for z in latents) / sum(z[0].numel() for z in latents)
    torch.testing.assert_close(prediction.score, total / 2)


def test_likelihood_rises_in_training():
    _, summary, _ = fit_tiny("csflow-efficientnet-lite0", epochs=4, **LITE0)
    losses = [epoch["loss"] for epoch in summary.history]
    assert losses[-1] < losses[0]


def test_image_sides_must_fit_all_three_scales(model):
    with pytest.raises(ConfigError, match="multiples of 64"):
        model(torch.zeros(1, 3, 64, 96))


def test_b5_card_trains_and_predicts():
    model = create_model("csflow", weights="random", cross_conv_channels=4, coupling_blocks=1)
    batch = tiny_batches(1, (128, 128), 1)[0]
    (update,) = model.training_step(batch, 0)
    update.loss.backward()
    assert all(p.grad is not None for p in model.flow.parameters())
    assert all(p.grad is None for p in model.features.parameters())
