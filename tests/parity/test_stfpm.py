"""STFPM against anomalib's answers."""

import pytest
import torch
from adcore.model import Batch
from adcore.training.plan import Plan
from adm_distill.stfpm import STFPM

RENAMES = [(r"^(teacher|student)\.net\.", r"\1.")]


@pytest.fixture
def filled(golden):
    """Our model with the parameters of the golden file."""
    stored = golden("stfpm")
    options = stored.facts["options"]
    model = STFPM(options["backbone"], tuple(options["layers"]), weights="random")
    stored.fill_module(model, RENAMES)
    model.fitted = True
    return model, stored


def test_maps_and_scores(filled):
    model, stored = filled
    with torch.no_grad():
        prediction = model.eval()(stored.input())
    stored.assert_map_close(prediction.anomaly_map)
    stored.assert_relative(prediction.score, "score")


def test_losses_of_five_steps(filled):
    """The peer sums the loss over the batch, the paper averages: the same training at a rate B times as high.

    In float64, for in float32 another order of summation alone moves the fifth loss by more than the bar.
    """
    model, stored = filled
    model.double()
    peer, batches = stored.facts["optimizer"], stored.train_batches(torch.float64)
    size = len(batches[0])
    plan = Plan(learning_rate=peer["lr"] * size, weight_decay=peer["weight_decay"] / size)
    optimizer = model.configure_optimizers(plan)["main"].optimizer
    assert (type(optimizer).__name__, optimizer.defaults["momentum"]) == (peer["class"], peer["momentum"])
    model.train()
    losses = []
    for step, images in enumerate(batches):
        masks = torch.zeros(size, *images.shape[-2:], dtype=torch.bool)
        for update in model.training_step(Batch(images, masks[:, 0, 0].long(), masks, masks[:, 0, 0], []), step):
            optimizer.zero_grad()
            update.loss.backward()
            optimizer.step()
            losses.append(size * update.loss.detach().double())
    stored.assert_relative(torch.stack(losses), "losses")
    with torch.no_grad():
        stored.assert_map_close(model.eval()(stored.input().double()).anomaly_map, "map_after")
