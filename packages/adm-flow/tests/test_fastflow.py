"""FastFlow: likelihood, map and training against what the paper's formulas say."""

import math

import pytest
import torch
from adcore.maps import upsample
from adcore.registry import create_model, model_card
from adcore.testing import fit_tiny
from adm_flow.fastflow import FastFlow, build_flow


@pytest.fixture(scope="module")
def model() -> FastFlow:
    return fit_tiny("fastflow-resnet18", weights="random", flow_steps=2)[0]


def test_flow_inverts_and_counts_volume(randomise, log_det):
    torch.manual_seed(0)
    flow = randomise(build_flow(4, steps=3, conv3x3_only=False, hidden_ratio=1.0)).double()
    x = torch.randn(2, 4, 3, 2, dtype=torch.float64)
    z, volume = flow(x)
    torch.testing.assert_close(flow(z, rev=True)[0], x)
    torch.testing.assert_close(volume, log_det(lambda s: flow(s)[0], x))


def test_subnets_alternate_and_hidden_ratio_holds():
    kernels = [b.subnet[0].kernel_size[0] for b in build_flow(10, 4, conv3x3_only=False, hidden_ratio=1.0)]
    assert kernels == [3, 1, 3, 1]
    narrow = build_flow(100, 4, conv3x3_only=True, hidden_ratio=0.16)
    assert [b.subnet[0].kernel_size[0] for b in narrow] == [3] * 4
    assert {b.subnet[0].out_channels for b in narrow} == {8}  # 0.16 of the 50 inputs


def test_loss_is_minus_the_gaussian_log_likelihood(model, tiny_batch):
    """Up to the constant d/2 log(2 pi) of each map, for the mean image of the batch."""
    (update,) = model.training_step(tiny_batch, 0)
    expected = 0.0
    with torch.no_grad():
        for z, volume in model.encode(tiny_batch.images):
            density = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum((1, 2, 3)) + volume
            expected -= (density + z[0].numel() * 0.5 * math.log(2 * math.pi)).mean()
    torch.testing.assert_close(update.loss.detach(), expected, rtol=1e-4, atol=1e-2)


def test_map_and_score_equal_the_formula(model, tiny_batch):
    images = tiny_batch.images
    with torch.no_grad():
        prediction = model(images)
        expected = torch.zeros(len(images), 64, 64)
        for z, _ in model.encode(images):
            b, c, h, w = z.shape
            for i in range(b):
                energy = torch.tensor([[(z[i, :, y, x] ** 2).sum() / c for x in range(w)] for y in range(h)])
                expected[i] -= upsample(torch.exp(-energy / 2)[None], (64, 64))[0] / 3
    torch.testing.assert_close(prediction.anomaly_map, expected)
    assert torch.equal(prediction.score, prediction.anomaly_map.flatten(1).max(1).values)


def test_likelihood_rises_in_training():
    _, summary, _ = fit_tiny("fastflow-resnet18", epochs=4, weights="random", flow_steps=2)
    losses = [epoch["loss"] for epoch in summary.history]
    assert losses[-1] < losses[0]


def test_only_norms_and_flows_learn(model):
    trainable = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trainable == {"norms", "flows"}


@pytest.mark.parametrize(
    ("name", "block", "size"), [("fastflow-cait", "blocks.40", 448), ("fastflow-deit", "blocks.7", 384)]
)
def test_transformer_cards_take_the_papers_block(name, block, size):
    card = model_card(name)
    assert (card.config["layers"], card.image_size) == ((block,), size)
    assert (card.config["flow_steps"], card.config["hidden_ratio"], card.config["conv3x3_only"]) == (20, 0.16, True)


def test_transformer_tokens_get_no_second_norm():
    model = create_model("fastflow-deit", weights="random", flow_steps=1)
    assert [type(norm) for norm in model.norms] == [torch.nn.Identity]
