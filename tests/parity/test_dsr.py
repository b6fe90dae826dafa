"""DSR against anomalib's answers."""

import adm_recon.dsr
import pytest
import torch
import torch.nn.functional as F
from adcore.training.plan import Plan
from adm_recon.dsr import DSR
from adm_recon.vqvae import AUTHORS_NAMES

RESTRICTION = {0: "encoder.block1", 2: "encoder.block2", 4: "encoder.block3", 5: "decoder.up2", 6: "decoder.db2"}
RESTRICTION |= {7: "decoder.up3", 8: "decoder.db3", 9: "decoder.fin_out.0"}
DECODER = {0: "block1", 2: "block2", 4: "pre_vq_conv", 5: "upblock1", 7: "upblock2", 9: "_conv_1"}
DECODER |= {10: "_residual_stack._layers", 11: "_conv_trans_1", 13: "_conv_trans_2"}
UNETS = {"detector": "anomaly_detection_module", "upsampler": "upsampling_module"}
RENAMES = [
    *(
        (pattern.replace("^", r"^vq\."), f"discrete_latent_model.{name}")
        for pattern, name in AUTHORS_NAMES
        if "^" in pattern
    ),
    *(
        (rf"^restrict_{level}\.{i}\.", f"subspace_restriction_module_{level}.unet.{name}.")
        for level in ("hi", "lo")
        for i, name in RESTRICTION.items()
    ),
    *((rf"^object_decoder\.{i}\.", f"image_reconstruction_network.{name}.") for i, name in DECODER.items()),
    *((rf"\.conv{i}\.", f"._block.{j}.") for i, j in ((1, 1), (2, 3))),
    *(
        (rf"^{ours}\.{kind}\.{i}\.", f"{theirs}.unet.{name}{i + 1}.")
        for ours, theirs in UNETS.items()
        for kind, name in (("encoder", "encoder.block"), ("up", "decoder.up"), ("merge", "decoder.db"))
        for i in range(4)
    ),
    *((rf"^{ours}\.out\.", f"{theirs}.unet.decoder.fin_out.0.") for ours, theirs in UNETS.items()),
]


def peer_focal_loss(logits, mask):
    """What the peer minimises: see test_losses."""
    cross_entropy = F.cross_entropy(logits.softmax(1), mask.long(), reduction="none")
    return ((1 - torch.exp(-cross_entropy)) ** 2 * cross_entropy * mask).mean() / 2


@pytest.fixture
def filled(golden):
    """Our model with the parameters of the golden file, its random anomalies left out or given."""
    stored = golden("dsr")
    model = DSR()
    stored.fill_module(model, RENAMES, keep=r"\.used$", unused=r"\._ema_")
    model.fitted = True
    model.vq.requires_grad_(False)
    model.anomaly_masks = lambda images: torch.zeros(2, len(images), *images.shape[-2:], dtype=torch.bool)
    return model, stored


def descend(optimizer, updates):
    """The losses of an optimizer step for each Update."""
    losses = []
    for update in updates:
        optimizer.zero_grad()
        update.loss.backward()
        optimizer.step()
        losses.append(update.loss.detach())
    return torch.stack(losses)


def test_maps_and_scores(filled):
    model, stored = filled
    with torch.no_grad():  # in double precision: in single, codes that are nearly as close change places
        prediction = model.double().eval()(stored.input().double())
    stored.assert_map_close(prediction.anomaly_map)
    stored.assert_relative(prediction.score, "score")


def test_losses(filled, steps, monkeypatch):
    """Losses of the second stage on undisturbed codes and of the third, once our focal loss is the peer's.

    The peer gives normal pixels the weight 0, as in DRAEM, and feeds probabilities to a loss that takes logits, so that even
    a perfect mask has a loss of 0.03. The paper does neither, and neither do we.
    """
    model, stored = filled
    stored = stored.first(steps)
    model.double()
    monkeypatch.setattr(adm_recon.dsr, "focal_loss", peer_focal_loss)
    optimizations = model.configure_optimizers(Plan())
    assert optimizations["main"].optimizer.defaults["lr"] == stored.facts["optimizer"]["lr"]
    start = {key: value.clone() for key, value in model.state_dict().items()}
    second_stage = (model.restriction_step(images) for images in stored.train_batches(torch.float64))
    stored.assert_relative(descend(optimizations["main"].optimizer, second_stage), "losses")

    model.load_state_dict(start)
    given = stored.defects(torch.float64)
    model.smudge = lambda images: next(given)
    third_stage = (model.upsampling_step(images) for images in stored.train_batches(torch.float64))
    stored.assert_relative(descend(optimizations["upsampling"].optimizer, third_stage), "upsampling_losses")
    with torch.no_grad():
        stored.assert_map_close(model.eval()(stored.input().double()).anomaly_map, "map_after")
