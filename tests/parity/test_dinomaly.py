"""Dinomaly against anomalib's answers, with and without register tokens."""

import pytest
import torch
from adcore.model import Batch
from adcore.training.plan import Plan
from adm_foundation.dinomaly import Dinomaly

RENAMES = [(r"^encoder\.net\.", "encoder."), (r"^bottleneck\.", "bottleneck.0.")]
BEHIND = r"^encoder\.(blocks\.1[01]\.|norm\.)"  # the peer runs its encoder to the end; nobody reads it


@pytest.fixture(
    params=[("dinomaly_small", "dinov2_vit_small_14"), ("dinomaly_small_reg", "dinov2reg_vit_small_14")],
    ids=lambda pair: pair[0],
)
def filled(golden, request):
    """Our model with the parameters of the golden file."""
    name, backbone = request.param
    stored = golden(name)
    model = Dinomaly(backbone, "random", bottleneck_dropout=stored.facts["options"]["bottleneck_dropout"])
    stored.fill_module(model, RENAMES, unused=BEHIND)
    model.fitted = True
    return model, stored


def compare(model, stored, suffix=""):
    with torch.no_grad():
        prediction = model.eval()(stored.input())
    stored.assert_map_close(prediction.anomaly_map, f"map{suffix}")
    stored.assert_relative(prediction.score, f"score{suffix}")


def losses(model, stored, first_step):
    """Five steps with our optimizer and clipping at the peer's constant rate."""
    optimization = model.configure_optimizers(Plan(steps_per_epoch=5))["main"]
    optimizer, peer = optimization.optimizer, stored.facts["optimizer"]
    if "groups" in peer:
        peer |= peer["groups"][0]
    ours = {
        key: optimizer.param_groups[0][key] for key in ("betas", "eps", "weight_decay", "amsgrad", "clip_threshold")
    }
    assert ours | {"betas": list(ours["betas"])} == {key: peer[key] for key in ours}
    assert (type(optimizer).__name__, optimization.clip_norm) == (peer["class"], stored.facts["clip"])
    optimizer.param_groups[0]["lr"] = peer["lr"]
    model.train()
    seen = []
    for step, images in enumerate(stored.train_batches()):
        masks = torch.zeros(len(images), *images.shape[-2:], dtype=torch.bool)
        for update in model.training_step(
            Batch(images, masks[:, 0, 0].long(), masks, masks[:, 0, 0], []), first_step + step
        ):
            optimizer.zero_grad()
            update.loss.backward()
            torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], optimization.clip_norm)
            optimizer.step()
            seen.append(update.loss.detach().double())
    return torch.stack(seen)


def test_maps_and_scores(filled):
    compare(*filled)


def test_losses_at_the_start(filled):
    model, stored = filled
    stored.assert_relative(losses(model, stored, first_step=0), "losses")


def test_losses_and_maps_with_full_hard_mining(filled):
    model, stored = filled
    first_step = stored.facts["first_step_of_losses_mined"]
    stored.assert_relative(losses(model, stored, first_step), "losses_mined")
    compare(model, stored, "_after" if "map_after" in stored.tensors else "_mined_after")
