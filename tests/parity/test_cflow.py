"""CFlow against anomalib's answers.

The peer sets likelihoods in relation to the best of the batch that is being judged, so that an image's map depends on the
images beside it; ours keeps the best of the training images. With the batch's best put in its place, the maps are the
same but for a constant: the peer's begin at 0, ours where a likelihood of the best in every layer would be.
"""

import pytest
import torch
from adcore.training.plan import Plan
from adm_flow.cflow import CFlow

RENAMES = [
    (r"^features\.net\.", "backbone."),
    (r"^backbone\.layer2\.", "backbone.logits.layer2."),
    (r"\.module_list\.", "."),
    (r"\.subnet\.", ".subnet.logits."),
]


@pytest.fixture
def filled(golden):
    """Our model with the parameters of the golden file."""
    stored = golden("cflow")
    options = stored.facts["options"]
    model = CFlow(options["backbone"], tuple(options["layers"]), weights="random")
    stored.fill_couplings(model, RENAMES, keep="^reference$")
    model.fitted = True
    return model, stored


def assert_equal_to_peer(model, stored, suffix: str = "") -> None:
    images = stored.input()
    with torch.no_grad():
        model.eval().reference.copy_(torch.stack([best.max() for best in model.log_likelihoods(images)]))
        prediction = model(images)
    start = prediction.anomaly_map.min()
    stored.assert_map_close(prediction.anomaly_map - start, f"map{suffix}")
    stored.assert_relative(prediction.score - start, f"score{suffix}")


def test_maps_and_scores(filled):
    assert_equal_to_peer(*filled)


def test_losses_of_every_fibre(filled):
    model, stored = filled
    optimizer = model.configure_optimizers(Plan())["main"].optimizer
    peer = stored.facts["optimizer"]
    assert type(optimizer).__name__ == peer["class"]
    assert optimizer.defaults["lr"] == peer["groups"][0]["lr"]
    losses = stored.train(model, Plan())
    stored.assert_relative(losses.view_as(stored.tensors["losses"]), "losses")
    assert_equal_to_peer(model, stored, "_after")
