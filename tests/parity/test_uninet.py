"""UniNet against anomalib's answers; both sides in float64, because AdamW's first steps are signs of gradients."""

import pytest
import torch
from adcore.model import Batch
from adcore.training.plan import Plan
from adm_foundation.uninet import UniNet

RENAMES = [
    (r"^(source|target)\.net\.", r"\1."),
    (r"^selection\.thetas\.0$", "dfs.theta1"),
    (r"^selection\.thetas\.1$", "dfs.theta2"),
    (r"^selection\.thetas\.2$", "dfs.theta3"),
    *(
        (rf"^bottleneck\.halvings\.{layer}\.{i}\.{j}\.", f"bottleneck.{kind}{number}.")
        for layer, i, number in ((0, 0, 1), (0, 1, 2), (1, 0, 3))
        for j, kind in enumerate(("conv", "bn"))
    ),
    (r"^bottleneck\.blocks\.(\d)\.", r"bottleneck.bn_layer.0.\1."),
    *(
        (rf"\.{branch}\.{i}\.", f".{theirs}.")
        for branch, names in (
            ("first", ("conv3x3", "bn2", None, "conv3x3_", "bn5")),
            ("second", ("conv7x7", "bn4", None, "conv7x7_", "bn6")),
            ("join", ("conv3", "bn3")),
        )
        for i, theirs in enumerate(names)
        if theirs
    ),
    (r"^bottleneck\.(.*)\.shortcut\.", r"bottleneck.\1.downsample."),
    *((rf"^student\.stages\.{i}\.", f"student.layer{i + 1}.") for i in range(3)),
    *(
        (rf"^student\.(.*)\.{ours}\.{i}\.", rf"student.\1.{theirs}{i + 1}.")
        for ours, theirs in (("convolutions", "conv"), ("norms", "bn"))
        for i in range(3)
    ),
    (r"^student\.(.*)\.shortcut\.", r"student.\1.upsample."),
]
# the peer has these and never runs them, but for fc: it classifies labels, and normal images have one label alone
UNUSED = r"^(fc\.|bottleneck\.(conv4|bn4)\.|bottleneck\..*\.bn7\.)"


@pytest.fixture
def filled(golden):
    """Our model with the parameters of the golden file."""
    stored = golden("uninet")
    options = stored.facts["options"]
    model = UniNet(options["teacher_backbone"], weights="random", temperature=options["temperature"])
    stored.fill_module(model, RENAMES, unused=UNUSED)
    model.fitted = True
    return model.double(), stored


def test_maps_and_scores(filled):
    model, stored = filled
    with torch.no_grad():
        prediction = model.eval()(stored.input().double())
    stored.assert_map_close(prediction.anomaly_map)
    stored.assert_relative(prediction.score, "score")


def test_losses_of_the_first_steps(filled, steps):
    """Without the drift of the frozen teacher's statistics, which the peer leaves in training mode."""
    model, stored = filled
    stored = stored.first(steps)
    optimizer = model.configure_optimizers(Plan(epochs=100))["main"].optimizer
    wanted = stored.facts["optimizer"]
    keys = ("lr", "weight_decay", "eps", "amsgrad")
    groups = [[group[key] for key in keys] for group in (wanted["groups"][0], wanted["groups"][3])]
    assert [[group[key] for key in keys] for group in optimizer.param_groups] == groups
    assert type(optimizer).__name__ == wanted["class"]
    model.train()
    losses = []
    for step, images in enumerate(stored.train_batches(torch.float64)):
        masks = torch.zeros(len(images), *images.shape[-2:], dtype=torch.bool)
        for update in model.training_step(Batch(images, masks[:, 0, 0].long(), masks, masks[:, 0, 0], []), step):
            optimizer.zero_grad()
            update.loss.backward()
            optimizer.step()
            losses.append(update.loss.detach())
    stored.assert_relative(torch.stack(losses), "losses")
