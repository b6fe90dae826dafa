"""Reverse Distillation against anomalib's answers."""

import pytest
import torch
from adcore.model import Batch
from adcore.training.plan import Plan
from adm_distill.reverse_distillation import ReverseDistillation

RENAMES = [
    (r"^encoder\.net\.", "encoder."),
    *(
        (rf"^bottleneck\.halvings\.{layer}\.{i}\.{j}\.", f"bottleneck.{kind}{number}.")
        for layer, i, number in ((0, 0, 1), (0, 1, 2), (1, 0, 3))
        for j, kind in enumerate(("conv", "bn"))
    ),
    (r"^bottleneck\.embedding\.", "bottleneck.bn_layer."),
    *((rf"^decoder\.stages\.{i}\.", f"decoder.layer{i + 1}.") for i in range(3)),
    *(
        (rf"\.{ours}\.{i}\.", f".{theirs}{i + 1}.")
        for ours, theirs in (("convolutions", "conv"), ("norms", "bn"))
        for i in range(3)
    ),
    (r"^bottleneck\.(.*)\.shortcut\.", r"bottleneck.\1.downsample."),
    (r"^decoder\.(.*)\.shortcut\.", r"decoder.\1.upsample."),
]
UNUSED = r"^bottleneck\.(conv4|bn4)\."  # the peer has them, as the authors' code, and never runs them


@pytest.fixture(params=["reverse_distillation", pytest.param("reverse_distillation_wide", marks=pytest.mark.slow)])
def filled(request, golden):
    """Our model with the parameters of the golden file."""
    stored = golden(request.param)
    options = stored.facts["options"]
    model = ReverseDistillation(options["backbone"], tuple(options["layers"]), "random", options["anomaly_map_mode"])
    stored.fill_module(model, RENAMES, unused=UNUSED)
    model.fitted = True
    return model.eval(), stored


def test_maps_and_scores(filled):
    model, stored = filled
    with torch.no_grad():
        prediction = model(stored.input())
    stored.assert_map_close(prediction.anomaly_map)
    stored.assert_relative(prediction.score, "score")


def test_losses_of_five_steps(filled):
    """In float64: rounding alone moves the fifth loss by half a percent in float32."""
    model, stored = filled
    model.double()
    optimizer = model.configure_optimizers(Plan())["main"].optimizer
    wanted = stored.facts["optimizer"]
    assert (type(optimizer).__name__, optimizer.defaults["lr"]) == (wanted["class"], wanted["lr"])
    assert list(optimizer.defaults["betas"]) == wanted["betas"]
    model.train()
    losses = []
    for step, images in enumerate(stored.train_batches(torch.float64)):
        masks = torch.zeros(len(images), *images.shape[-2:], dtype=torch.bool)
        for update in model.training_step(Batch(images, masks[:, 0, 0].long(), masks, masks[:, 0, 0], []), step):
            optimizer.zero_grad()
            update.loss.backward()
            optimizer.step()
            losses.append(update.loss.detach().double())
    stored.assert_relative(torch.stack(losses), "losses")
    with torch.no_grad():
        prediction = model.eval()(stored.input().double())
    stored.assert_map_close(prediction.anomaly_map, "map_after")
