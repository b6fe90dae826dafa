"""GANomaly against anomalib's answers."""

import pytest
import torch
from adcore.training.plan import Plan
from adm_recon.ganomaly import GANomaly

WIDTHS = (16, 32, 64, 128)  # of the pyramid's levels, part of the peer's names
PYRAMID = [
    (r"\.0\.0\.", ".input_layers.initial-conv-3-16."),
    *((rf"\.0\.{2 + 3 * i}\.", f".pyramid_features.pyramid-{WIDTHS[i]}-{WIDTHS[i + 1]}-conv.") for i in range(3)),
    *((rf"\.0\.{3 + 3 * i}\.", f".pyramid_features.pyramid-{WIDTHS[i + 1]}-batchnorm.") for i in range(3)),
    (r"\.1\.", ".final_conv_layer."),
]
DECODER = [
    (r"decoder\.0\.", "decoder.latent_input.initial-32-128-convt."),
    (r"decoder\.1\.", "decoder.latent_input.initial-128-batchnorm."),
    *(
        (rf"decoder\.{3 + 3 * i}\.", f"decoder.inverse_pyramid.pyramid-{WIDTHS[3 - i]}-{WIDTHS[2 - i]}-convt.")
        for i in range(3)
    ),
    *((rf"decoder\.{4 + 3 * i}\.", f"decoder.inverse_pyramid.pyramid-{WIDTHS[2 - i]}-batchnorm.") for i in range(3)),
    (r"decoder\.12\.", "decoder.final_layers.final-16-3-convt."),
]
RENAMES = [
    *((rf"^generator\.encoder{ours}", f"generator.encoder1{theirs}") for ours, theirs in PYRAMID),
    *((rf"^generator\.second_encoder{ours}", f"generator.encoder2{theirs}") for ours, theirs in PYRAMID),
    *((rf"^generator\.{ours}", f"generator.{theirs}") for ours, theirs in DECODER),
    (r"^discriminator\.classifier\.", "discriminator.classifier.0."),
]


@pytest.fixture
def filled(golden):
    """Our model with the parameters of the golden file."""
    stored = golden("ganomaly")
    options = stored.facts["options"]
    model = GANomaly(n_features=options["n_features"], latent=options["latent_vec_size"], levels=3)
    stored.fill_module(model, RENAMES)
    model.fitted = True
    return model, stored


def test_scores(filled):
    model, stored = filled
    with torch.no_grad():
        stored.assert_relative(model.eval()(stored.input()).score, "score")


def test_losses_of_five_steps(filled):
    """Both losses agree, once our features of the discriminator are replaced by its probability.

    The paper's adversarial loss compares features f(x); the peer compares the probabilities of being real. These saturate
    as soon as the discriminator tells both apart, and then teach the generator nothing.
    """
    model, stored = filled
    model.train()
    discriminate = model.discriminator.forward

    def probabilities(x):
        _, logits = discriminate(x)
        return logits.sigmoid(), logits

    model.discriminator.forward = probabilities
    losses = {"main": [], "discriminator": []}
    wanted = stored.facts["optimizer"]
    for optimization in model.configure_optimizers(Plan()).values():
        defaults = optimization.optimizer.defaults
        assert (defaults["lr"], list(defaults["betas"])) == (stored.facts["full_rate"], wanted["betas"])
    optimizations = model.configure_optimizers(Plan(learning_rate=stored.facts["full_rate"] / 10))
    for step, batch in enumerate(stored.batches()):
        for update in model.training_step(batch, step):
            optimizer = optimizations[update.optimizer].optimizer
            optimizer.zero_grad()
            update.loss.backward()
            optimizer.step()
            losses[update.optimizer].append(update.loss.detach())
    stored.assert_relative(torch.stack(losses["main"]), "generator_losses")
    stored.assert_relative(torch.stack(losses["discriminator"]), "discriminator_losses")
    with torch.no_grad():
        stored.assert_relative(model.eval()(stored.input()).score, "score_after")
