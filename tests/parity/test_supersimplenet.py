"""SuperSimpleNet against anomalib's answers, trained on normal images alone and with masks; in float64, as AdamW's first
steps are signs of gradients."""

import pytest
import torch
from adcore.model import Batch
from adcore.training.plan import Plan
from adm_foundation.supersimplenet import SuperSimpleNet

RENAMES = [
    (r"^features\.extractor\.net\.", "backbone."),
    (r"^adaptor\.", "adaptor.projection."),
    (r"^segmentation\.", "segdec.seg_head."),
    (r"^classification\.(conv|fc)\.", r"segdec.cls_\1."),
]


@pytest.fixture(params=["supersimplenet", "supersimplenet_supervised"])
def filled(request, golden):
    """Our model with the parameters of the golden file."""
    stored = golden(request.param)
    supervised = stored.facts["supervised"]
    model = SuperSimpleNet("resnet18", tuple(stored.facts["options"]["layers"]), "random", supervised=supervised)
    stored.fill_module(model, RENAMES)
    model.fitted = True
    return model.double(), stored


def compare(model, stored, suffix=""):
    """The peer answers with probabilities; ours stay logits, which never saturate."""
    with torch.no_grad():
        prediction = model.eval()(stored.input().double())
    stored.assert_map_close(prediction.anomaly_map.sigmoid(), f"map{suffix}")
    stored.assert_relative(prediction.score.sigmoid(), f"score{suffix}")


def batch(images, step, supervised):
    """With supervision, the first image has a defect, as told to the peer."""
    masks, labels = torch.zeros(len(images), *images.shape[-2:], dtype=torch.bool), torch.zeros(len(images))
    if supervised:
        masks[0, 10 + 9 * step : 50 + 9 * step, 30:75] = True
        labels[0] = 1
    return Batch(images, labels.long(), masks, torch.ones(len(images), dtype=torch.bool), [])


def test_maps_and_scores(filled):
    compare(*filled)


def test_losses_of_the_first_steps(filled, steps):
    """The same noise on both sides, made from its name."""
    model, stored = filled
    stored = stored.first(steps)
    fill, current = stored.fill, 0

    def given(shape, _device):
        mask = (fill.images(f"mask.{current}", (shape[0], 1, *shape[-2:])) > 0).float()
        mask[1::2] = 0
        return model.noise_std * torch.randn(shape, generator=fill.generator(f"noise.{current}")), mask

    model.noise = given
    optimizer = model.configure_optimizers(Plan(epochs=100))["main"].optimizer
    wanted = stored.facts["optimizer"]
    assert type(optimizer).__name__ == wanted["class"]
    for ours, theirs in zip(optimizer.param_groups, wanted["groups"], strict=True):
        assert [ours[key] for key in ("lr", "weight_decay", "eps")] == [
            theirs[key] for key in ("lr", "weight_decay", "eps")
        ]
    model.train()
    losses = []
    for current, images in enumerate(stored.train_batches(torch.float64)):
        for update in model.training_step(batch(images, current, model.supervised), current):
            optimizer.zero_grad()
            update.loss.backward()
            optimizer.step()
            losses.append(update.loss.detach().double())
    stored.assert_relative(torch.stack(losses), "losses")
    compare(model, stored, "_after")
