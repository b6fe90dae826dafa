"""FRE against anomalib's answers."""

import pytest
import torch
from adcore.model import Batch
from adcore.training.plan import Plan
from adm_distill.fre import FRE

RENAMES = [(r"^extractor\.net\.", "backbone.")]


@pytest.fixture
def filled(golden):
    """Our model with the parameters of the golden file."""
    stored = golden("fre")
    options = stored.facts["options"]
    model = FRE(
        options["backbone"], options["layer"], "random", options["pooling_kernel_size"], latent=options["latent_dim"]
    )
    model.autoencoder.allocate(options["input_dim"])
    stored.fill_module(model, RENAMES)
    model.fitted = True
    return model.eval(), stored


def test_maps_and_scores(filled):
    model, stored = filled
    with torch.no_grad():
        prediction = model(stored.input())
    stored.assert_map_close(prediction.anomaly_map)
    stored.assert_relative(prediction.score, "score")


def test_losses_of_five_steps(filled):
    model, stored = filled
    optimizer = model.configure_optimizers(Plan())["main"].optimizer
    wanted = stored.facts["optimizer"]
    assert (type(optimizer).__name__, optimizer.defaults["lr"]) == (wanted["class"], wanted["lr"])
    model.train()
    losses = []
    for step, images in enumerate(stored.train_batches()):
        masks = torch.zeros(len(images), *images.shape[-2:], dtype=torch.bool)
        for update in model.training_step(Batch(images, masks[:, 0, 0].long(), masks, masks[:, 0, 0], []), step):
            optimizer.zero_grad()
            update.loss.backward()
            optimizer.step()
            losses.append(update.loss.detach().double())
    stored.assert_relative(torch.stack(losses), "losses")
    with torch.no_grad():
        stored.assert_map_close(model.eval()(stored.input()).anomaly_map, "map_after")
