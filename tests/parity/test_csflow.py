"""CS-Flow against anomalib's answers.

The peer reads torchvision's EfficientNet-B5, ours timm's: the same network, with other names for its layers.
"""

import pytest
import torch
from adcore.training.plan import Plan
from adm_flow.csflow import CrossScalePermutation, CSFlow

FIRST = {"conv_dw": "0.0", "bn1": "0.1", "se.conv_reduce": "1.fc1", "se.conv_expand": "1.fc2", "conv_pw": "2.0"}
FIRST["bn2"] = "2.1"
OTHERS = {"conv_pw": "0.0", "bn1": "0.1", "conv_dw": "1.0", "bn2": "1.1", "se.conv_reduce": "2.fc1"}
OTHERS |= {"se.conv_expand": "2.fc2", "conv_pwl": "3.0", "bn3": "3.1"}
RENAMES = [
    (r"^features\.net\.conv_stem\.", "backbone.features.0.0."),
    (r"^features\.net\.bn1\.", "backbone.features.0.1."),
    *((rf"^features\.net\.blocks\.{i}\.", f"backbone.features.{i + 1}.") for i in range(6)),
    *((rf"^(backbone\.features\.1\.\d+)\.{ours}\.", rf"\1.block.{theirs}.") for ours, theirs in FIRST.items()),
    *((rf"^(backbone\.features\.[2-6]\.\d+)\.{ours}\.", rf"\1.block.{theirs}.") for ours, theirs in OTHERS.items()),
    (r"^backbone\.features\.(\d)\.([1-9])\.", r"backbone.logits.features.\1.\2."),
    (r"^flow\.module_list\.", "flow."),
    (r"\.of_first\.", ".cross_convolution1."),
    (r"\.of_second\.", ".cross_convolution2."),
    (r"\.first\.(\d)\.", r".conv_scale\1_0."),
    (r"\.second\.(\d)\.", r".conv_scale\1_1."),
    (r"\.down\.0\.", ".down_conv01."),
    (r"\.down\.1\.", ".down_conv12."),
    (r"\.up\.0\.", ".up_conv10."),
    (r"\.up\.1\.", ".up_conv21."),
    (r"\.gamma\.(\d)$", r".gamma\1"),
]


@pytest.fixture
def filled(golden):
    """Our model with the parameters of the golden file."""
    stored = golden("csflow")
    options = stored.facts["options"]
    model = CSFlow(
        weights="random",
        coupling_blocks=options["n_coupling_blocks"],
        cross_conv_channels=options["cross_conv_hidden_channels"],
    )
    stored.fill_module(model, RENAMES, keep="permutation$")
    layers = [layer for layer in model.flow.module_list if isinstance(layer, CrossScalePermutation)]
    for layer, permutation in zip(layers, stored.tensors["permutations"], strict=True):
        layer.permutation.copy_(permutation)
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
    chosen = model.configure_optimizers(Plan())["main"]
    assert type(chosen.optimizer).__name__ == peer["class"]
    for key in ("lr", "eps", "weight_decay"):
        assert chosen.optimizer.defaults[key] == peer["groups"][0][key]
    assert (list(chosen.optimizer.defaults["betas"]), chosen.clip_norm) == (
        peer["groups"][0]["betas"],
        stored.facts["clip"],
    )
    stored.assert_relative(stored.train(model, Plan()), "losses")
    with torch.no_grad():
        stored.assert_map_close(model.eval()(stored.input()).anomaly_map, "map_after")
