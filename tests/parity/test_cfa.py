"""CFA against anomalib's answers."""

import pytest
import torch
from adcore.training.plan import Plan
from adcore.training.trainer import Trainer
from adm_memory.cfa import CFA

RENAMES = [(r"^extractor\.net\.", "backbone.")]
UNUSED = r"^(descriptor\.layer\.|backbone\.(layer4|fc)\.)"  # the peer's convolution inside its CoordConv is not used


@pytest.fixture
def filled(golden):
    """Our model with the parameters of the golden file, and its bank made from the batches."""
    stored = golden("cfa")
    model = CFA(stored.facts["options"]["backbone"], weights="random")
    stored.fill_module(model, RENAMES, keep="^memory_bank$", unused=UNUSED)
    batches = stored.batches()
    trainer = Trainer(model, Plan(), batches, num_images=sum(len(batch.images) for batch in batches))
    model.on_fit_start(trainer.fit)
    model.fitted = True
    return model.eval(), stored


def test_bank_maps_and_scores(filled):
    model, stored = filled
    stored.assert_map_close(model.memory_bank.t(), "bank")
    with torch.no_grad():
        prediction = model(stored.input())
    stored.assert_map_close(prediction.anomaly_map)
    stored.assert_relative(prediction.score, "score")


def test_losses_of_five_steps(filled):
    model, stored = filled
    optimizer = model.configure_optimizers(Plan())["main"].optimizer
    wanted = stored.facts["optimizer"]
    assert type(optimizer).__name__ == wanted["class"]
    assert all(optimizer.defaults[key] == wanted[key] for key in ("lr", "weight_decay", "amsgrad"))
    stored.assert_relative(stored.train(model, Plan()), "losses")
    with torch.no_grad():
        stored.assert_map_close(model.eval()(stored.input()).anomaly_map, "map_after")
