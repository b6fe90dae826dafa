"""U-Flow against anomalib's answers."""

import pytest
import torch
from adcore.training.plan import Plan
from adm_flow.uflow import UFlow

RENAMES = [(r"^features\.net\.", "backbone."), (r"\.module_list\.", ".")]


@pytest.fixture
def filled(golden):
    """Our model with the parameters of the golden file."""
    stored = golden("uflow")
    model = UFlow(stored.facts["options"]["backbone"], weights="random")
    with torch.no_grad():
        model.train().encode(stored.input())  # gives the norms their size
    stored.fill_couplings(model, RENAMES, keep="downsample_kernel")
    model.fitted = True
    return model, stored


def test_maps_and_scores(filled):
    model, stored = filled
    with torch.no_grad():
        prediction = model.eval()(stored.input())
    stored.assert_map_close(prediction.anomaly_map)
    stored.assert_relative(prediction.score, "score")


def test_losses_of_five_steps(filled):
    model, stored = filled
    peer = stored.facts["optimizer"]
    optimizer = model.configure_optimizers(Plan())["main"].optimizer
    assert type(optimizer).__name__ == peer["class"]
    for key in ("lr", "weight_decay"):
        assert optimizer.defaults[key] == peer["groups"][0][key]
    stored.assert_relative(stored.train(model, Plan()), "losses")
    with torch.no_grad():
        stored.assert_map_close(model.eval()(stored.input()).anomaly_map, "map_after")
