"""DRAEM-SevNet: it is DRAEM where the severity is left out, and where it is not, the head learns to rank anomalies."""

import pytest
import torch
from adcore.registry import create_model, model_card
from adcore.testing.tiny import tiny_batches, tiny_images
from adcore.training.device import seed_everything
from adcore.training.plan import Plan
from adcore.training.trainer import Trainer
from adm_recon.synthetic import CutPaste, cut_paste
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

SMALL = {"reconstructive_width": 4, "discriminative_width": 4}
MASK_ALONE = {"severity_weight": 0.0, "score_combination": "weighted_average", "score_weight": 0.0}


def fit(model, images=6, batch_size=2, epochs=2, **plan):
    seed_everything(0)
    batches = tiny_batches(images, (64, 64), batch_size)
    return Trainer(model, Plan(epochs=epochs, batch_size=batch_size, **plan), batches, images).run()


@given(
    width=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted).map(tuple),
    ratio=st.tuples(st.floats(0.1, 5), st.floats(0.1, 5)).map(sorted).map(tuple),
    count=st.integers(1, 4),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=40, deadline=None)
def test_faults_lie_where_the_mask_says_and_nowhere_else(width, ratio, count, seed):
    torch.manual_seed(seed)
    images = torch.rand(3, 3, 20, 36) + 0.1
    damaged, mask, severity = cut_paste(images, CutPaste(width, ratio, count, 2.0, 0.7))
    assert torch.equal(damaged.movedim(1, -1)[~mask], images.movedim(1, -1)[~mask])
    assert ((severity >= 0) & (severity <= 2)).all()
    assert torch.equal(mask.flatten(1).any(1), severity > 0)
    changed = (damaged != images).any(1)
    assert torch.equal(changed | mask, mask)
    assert changed[severity > 1e-3].flatten(1).any(1).all()


def test_severity_zero_leaves_the_image_bit_for_bit():
    images = torch.rand(4, 3, 32, 32)
    never = cut_paste(images, CutPaste(probability=0.0))
    harmless = cut_paste(images, CutPaste(probability=1.0, severity_max=0.0))
    for damaged, mask, severity in (never, harmless):
        assert torch.equal(damaged, images)
        assert not mask.any()
        assert not severity.any()


def test_damage_grows_with_the_severity():
    images = torch.full((64, 3, 32, 32), 0.5)  # a surface without texture: pasting alone would change nothing
    damaged, mask, severity = cut_paste(images, CutPaste(probability=1.0))
    depth = torch.stack([(d - 0.5)[:, m].mean() for d, m in zip(damaged, mask, strict=True)])
    assert torch.allclose(depth.abs(), 0.5 * severity, atol=1e-6)
    assert 16 < (depth > 0).sum() < 48  # as often brighter as darker


def test_without_severity_it_is_draem_exactly():
    seed_everything(0)
    sevnet = create_model("draem-sevnet", **SMALL, **MASK_ALONE)
    seed_everything(0)
    draem = create_model("draem", **SMALL)
    draem.damage = lambda batch: cut_paste(batch.images, sevnet.anomaly)[:2]
    first, second = fit(sevnet), fit(draem)
    assert first.history == second.history
    trained = sevnet.draem.state_dict()
    assert all(torch.equal(value, trained[key]) for key, value in draem.state_dict().items())
    images = tiny_images(3, (64, 64), seed=5)
    with torch.no_grad():
        ours, theirs = sevnet(images), draem(images)
    assert torch.equal(ours.score, theirs.score)
    assert torch.equal(ours.anomaly_map, theirs.anomaly_map)


@pytest.mark.parametrize(
    ("combination", "expected"),
    [("simple_average", [0.5, 0.35, 0.7]), ("weighted_average", [0.25, 0.475, 0.55]), ("maximum", [1.0, 0.6, 1.0])],
)
def test_score_combinations(combination, expected):
    model = create_model("draem-sevnet", **SMALL, severity_max=2.0, score_combination=combination, score_weight=0.25)
    model.fitted = True
    masks = torch.zeros(3, 64, 64)
    masks[:, 5, 5] = torch.tensor([0.0, 0.6, 0.4])
    severity = torch.tensor([3.0, 0.2, 2.0])  # above severity_max it counts as 1; 0.2 of 2 is 0.1
    model.segment = lambda images: (masks, severity)
    assert model(torch.zeros(3, 3, 64, 64)).score.tolist() == pytest.approx(expected)
    model.segment = lambda images: (masks, -severity)  # negative severities count as none
    assert model(torch.zeros(3, 3, 64, 64)).score.max() <= max(0.6, 0.75 * 0.6)


@pytest.mark.parametrize("head", ["gap", "spatial_aware"])
@pytest.mark.parametrize("name", ["draem-sevnet", "draem-sevnet-multiscale"])
def test_severity_loss_reaches_head_and_encoder(name, head):
    model = create_model(name, **SMALL, severity_head=head, anomaly_probability=1.0).train()
    update = next(iter(model.training_step(tiny_batches(2, (64, 64), 2)[0], 0)))
    update.loss.backward()
    assert update.logs["severity"] > 0
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_trains_on_normal_images_alone():
    assert not model_card("draem-sevnet").supervised  # its anomalies are synthetic: labelled anomalies are never passed


@pytest.mark.parametrize(
    ("name", "head", "epochs"),
    [
        pytest.param("draem-sevnet", "gap", 20, marks=pytest.mark.slow),
        pytest.param("draem-sevnet-multiscale", "gap", 40, marks=pytest.mark.slow),
        pytest.param("draem-sevnet", "spatial_aware", 80, marks=pytest.mark.slow),
    ],
)
def test_head_ranks_unseen_faults_by_severity(name, head, epochs):
    seed_everything(0)
    model = create_model(name, **SMALL, severity_head=head, patch_width=(0.2, 0.4), anomaly_probability=0.8)
    fit(model, images=32, batch_size=4, epochs=epochs, learning_rate=5e-3)
    torch.manual_seed(1)
    damaged, _, severity = model.damage(tiny_images(128, (64, 64), seed=9))
    with torch.no_grad():
        _, predicted = model.segment(damaged)
    defective = severity > 0
    assert spearmanr(predicted, severity).statistic > 0.8
    assert spearmanr(predicted[defective], severity[defective]).statistic > 0.8
