"""GANomaly: two networks in turn, and a score that follows the distance of the two latents."""

import os
from pathlib import Path

import adcore
import pytest
import torch
from adcore.errors import ConfigError
from adcore.registry import create_model, open_dataset
from adcore.testing.tiny import tiny_batches
from adcore.training.plan import Plan
from hypothesis import given
from hypothesis import strategies as st

SMALL = {"levels": 3, "n_features": 4, "latent": 8}
DATA = Path(os.environ.get("ADCORE_TEST_DATA") or Path(__file__).resolve().parents[4] / "shared" / "data")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return create_model("ganomaly", **SMALL)


@given(st.lists(st.floats(0, 100), min_size=2, max_size=6))
def test_score_is_monotone_in_the_latent_error(errors):
    model = create_model("ganomaly", **SMALL).eval()
    model.fitted = True
    z = torch.randn(len(errors), 8, 1, 1)
    direction = torch.nn.functional.normalize(torch.ones(8), dim=0).view(8, 1, 1)
    z_hat = z + torch.tensor(errors).view(-1, 1, 1, 1) * direction
    model.generator.forward = lambda x: (x, z, z_hat)
    score = model(torch.rand(len(errors), 3, 64, 64)).score
    assert torch.allclose(score, torch.tensor(errors) ** 2 / 8, rtol=1e-3, atol=1e-4)


def test_a_score_depends_neither_on_the_batch_nor_on_what_was_scored_before(model):
    """The peer rescales each test batch by the extremes seen so far, which mixes up the order between batches."""
    model.fitted = True
    model.eval()
    images = torch.rand(4, 3, 64, 64)
    images[3] = 0.0
    with torch.no_grad():
        together = model(images).score
        backwards = torch.cat([model(images[i : i + 1]).score for i in (3, 2, 1, 0)]).flip(0)
    torch.testing.assert_close(backwards, together, rtol=1e-4, atol=0)


def test_generator_and_discriminator_are_trained_in_turn(model):
    model.train()
    optimizations = model.configure_optimizers(Plan())
    order = []
    for update in model.training_step(tiny_batches(2, (64, 64), 2)[0], 0):
        before = {name: value.clone() for name, value in model.named_parameters()}
        optimizer = optimizations[update.optimizer].optimizer
        optimizer.zero_grad()
        update.loss.backward()
        optimizer.step()
        order.append(
            {name.split(".")[0] for name, value in model.named_parameters() if not torch.equal(value, before[name])}
        )
        if update.optimizer == "main":
            assert all(p.grad is None for p in model.discriminator.parameters())
    assert order == [{"generator"}, {"discriminator"}]


def test_decoder_can_reach_every_value_of_the_input(model):
    """Its tanh ends at -1 and 1, so that is where black and white must lie."""
    scaled = model.scaled(torch.stack([torch.zeros(3, 64, 64), torch.ones(3, 64, 64)]))
    assert scaled.aminmax() == (-1.0, 1.0)


def test_image_sizes(model):
    model.fitted = True
    model.eval()
    for size in ((64, 64), (64, 96), (128, 80)):
        assert model(torch.rand(1, 3, *size)).score.shape == (1,)
    with pytest.raises(
        ConfigError, match=r"levels=3 needs .* multiples of 16 and at least 64, got 32 x 32; try levels=2"
    ):
        model(torch.rand(1, 3, 32, 32))


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["mvtec", "magtile"])
def test_above_chance_on_real_images(folder, tmp_path):
    if not (DATA / folder).is_dir():
        pytest.skip(f"no real test images in {DATA}; set ADCORE_TEST_DATA to their folder")
    category = open_dataset("mvtec", str(DATA / folder)).categories()[0]
    settings = {"image_size": 64, "levels": 3, "num_epochs": 20, "device": "cpu"}
    run = adcore.train(f"mvtec:{DATA / folder}", category, "ganomaly", out=tmp_path / "run", **settings)
    assert run.metrics.values["image_auroc"] > 0.55
