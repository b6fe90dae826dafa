"""DRAEM, with and without SSPCAB, against anomalib's answers, on the same given defects."""

import adm_recon.draem
import pytest
import torch
import torch.nn.functional as F
from adcore.training.plan import Plan
from adm_recon.draem import DRAEM

UPSAMPLING = ["up1", "db1", "up2", "db2", "up3", "db3", "up4", "db4", "logits"]
STAGES = ["_b", "1", "2", "3", "4"]  # of the discriminative decoder, deepest first
RENAMES = [
    *((rf"^reconstructive\.encoder\.{2 * i}\.", f"reconstructive.encoder.block{i + 1}.") for i in range(4)),
    (r"^reconstructive\.bottleneck\.", "reconstructive.encoder.block5."),
    *((rf"block5\.corners\.{i}\.", f"block5.masked_conv{i + 1}.") for i in range(4)),
    (r"block5\.squeeze\.", "block5.attention_module.fc1."),
    (r"block5\.excite\.", "block5.attention_module.fc2."),
    *((rf"^reconstructive\.decoder\.{i}\.", f"reconstructive.decoder.{name}.") for i, name in enumerate(UPSAMPLING)),
    *((rf"^discriminative\.encoder\.{i}\.", f"discriminative.encoder_segment.block{i + 1}.") for i in range(6)),
    *((rf"^discriminative\.up\.{i}\.", f"discriminative.decoder_segment.up{s}.") for i, s in enumerate(STAGES)),
    *((rf"^discriminative\.merge\.{i}\.", f"discriminative.decoder_segment.db{s}.") for i, s in enumerate(STAGES)),
    (r"^discriminative\.out\.", "discriminative.decoder_segment.logits."),
]


def peer_focal_loss(logits, mask):
    """What the peer minimises: anomalous pixels only, averaged over both classes' channels."""
    cross_entropy = F.cross_entropy(logits, mask.long(), reduction="none")
    return ((1 - torch.exp(-cross_entropy)) ** 2 * cross_entropy * mask).mean() / 2


@pytest.fixture
def filled(request, golden):
    """Our model with the parameters of the golden file `request.param`, damaging images the way the peer was made to."""
    stored = golden(request.param)
    model = DRAEM(sspcab=stored.facts["options"]["enable_sspcab"])
    stored.fill_module(model, RENAMES)
    if stored.facts["options"]["enable_sspcab"]:
        model.reconstructive.bottleneck.activation = torch.nn.Identity()  # the peer leaves out the paper's ReLU
    model.fitted = True
    given = stored.defects(torch.float64)
    model.damage = lambda _: next(given)
    return model, stored


@pytest.mark.parametrize("filled", ["draem", "draem_sspcab"], indirect=True)
def test_maps_and_scores(filled):
    model, stored = filled
    with torch.no_grad():
        prediction = model.eval()(stored.input())
    stored.assert_map_close(prediction.anomaly_map)
    stored.assert_relative(prediction.score, "score")


@pytest.mark.slow  # what the losses are made of is tested with DRAEM, and DSR's first step in every run of the suite
@pytest.mark.parametrize("filled", ["draem", "draem_sspcab"], indirect=True)
def test_losses_of_the_first_steps(filled, steps, monkeypatch):
    """The total losses agree, in float64, once our focal loss is replaced by the peer's.

    The peer's focal loss gives normal pixels the weight 0 (a library's alpha of 1 means 1 for anomalies, 0 for the rest), so
    that a mask which is anomalous everywhere costs nothing. The paper has no such weight, and neither do we.
    """
    model, stored = filled
    stored = stored.first(steps)
    model.double()
    wanted = stored.facts["optimizer"]
    optimizer = model.configure_optimizers(Plan())["main"].optimizer
    assert (type(optimizer).__name__, optimizer.defaults["lr"]) == (wanted["class"], stored.facts["full_rate"])
    optimizer.param_groups[0]["lr"] = wanted["lr"]
    monkeypatch.setattr(adm_recon.draem, "focal_loss", peer_focal_loss)
    losses = []
    for step, batch in enumerate(stored.batches(torch.float64)):
        for update in model.train().training_step(batch, step):
            optimizer.zero_grad()
            update.loss.backward()
            optimizer.step()
            losses.append(update.loss.detach())
    stored.assert_relative(torch.stack(losses), "losses")
    with torch.no_grad():
        prediction = model.eval()(stored.input().double())
    stored.assert_map_close(prediction.anomaly_map, "map_after")
    stored.assert_relative(prediction.score, "score_after")
