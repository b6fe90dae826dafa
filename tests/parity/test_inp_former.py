"""INP-Former against anomalib's answers, on DINOv2 with registers."""

import pytest
import torch
from adcore.maps import gaussian_blur
from adcore.training.plan import Plan
from adm_foundation.inp_former import InpFormer

RENAMES = [
    (r"^encoder\.net\.", "encoder."),
    (r"^bottleneck\.", "bottleneck.0."),
    (r"^extractor\.tokens", "prototype_token.0"),
    (r"^extractor\.", "aggregation.0."),
    (r"\.attn\.scale$", ".attn.learn_scale"),
]
BEHIND = r"^encoder\.(blocks\.1[01]\.|norm\.)"  # the peer runs its encoder to the end; nobody reads it


@pytest.fixture
def filled(golden):
    """Our model with the parameters of the golden file."""
    stored = golden("inp_former")
    model = InpFormer("dinov2reg_vit_small_14", "random")
    stored.fill_module(model, RENAMES, unused=BEHIND)
    model.fitted = True
    return model, stored


def compare(model, stored, suffix=""):
    """The peer blurs its map at the input's size, and scores that; we score at 256 px, as the authors and Dinomaly do."""
    with torch.no_grad():
        maps = model.eval()(stored.input()).anomaly_map
    blurred = gaussian_blur(maps, sigma=4.0, kernel_size=5)
    stored.assert_map_close(blurred, f"map{suffix}")
    highest = blurred.flatten(1).topk(int(0.01 * blurred[0].numel())).values.mean(1)
    stored.assert_relative(highest, f"score{suffix}")


def test_maps_and_scores(filled):
    compare(*filled)


def test_losses_of_the_first_steps(filled, steps):
    model, stored = filled
    stored = stored.first(steps)
    plan = Plan(steps_per_epoch=5)
    optimization, peer = model.configure_optimizers(plan)["main"], stored.facts["optimizer"]
    ours = optimization.optimizer.param_groups[0]
    assert [ours[key] for key in ("weight_decay", "eps", "amsgrad", "clip_threshold")] == [
        peer[key] for key in ("weight_decay", "eps", "amsgrad", "clip_threshold")
    ]
    assert (type(optimization.optimizer).__name__, optimization.clip_norm) == (peer["class"], stored.facts["clip"])
    ours["lr"] = peer["lr"]
    model.configure_optimizers = lambda plan: {"main": optimization}
    stored.assert_relative(stored.train(model, plan), "losses")
    compare(model, stored, "_after")
