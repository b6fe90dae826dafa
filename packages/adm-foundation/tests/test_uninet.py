"""UniNet: loss and selection by hand, who is paired with whom, what learns and what does not."""

import pytest
import torch
import torch.nn.functional as F
from adcore.errors import ConfigError
from adcore.registry import create_model, model_card
from adcore.testing import tiny_batches
from adcore.training.plan import Plan
from adm_foundation.uninet import FeatureSelection, contrastive_loss

SMALL = {"backbone": "resnet18", "weights": "random"}


@pytest.fixture(scope="module")
def model():
    return create_model("uninet", **SMALL)


def test_cards_have_the_defaults_their_users_know():
    card = model_card("uninet")
    assert (card.epochs, card.batch_size, card.image_size) == (20, 4, 256)
    assert card.required_backbones == ("wide_resnet50_2",)
    with torch.device("meta"):
        built = create_model("uninet", weights="random")
    assert (built.temperature, built.balance, built.source.channels) == (0.4, 0.7, [256, 512, 1024])


def test_contrastive_loss_by_hand():
    """Every location of the student against every location of the teacher, by brute force."""
    student, teacher = torch.randn(2, 2, 5, 2, 3, generator=torch.Generator().manual_seed(0))
    expected = 0.0
    for s, t in zip(student.flatten(2), teacher.flatten(2), strict=True):  # (C, N)
        for i in range(6):
            alike = torch.stack([F.cosine_similarity(s[:, i], t[:, j], dim=0) for j in range(6)])
            p = (alike / 0.5).softmax(0)[i]
            expected += 0.6 * (1 - alike[i]) - 0.4 * p.log() + (1 - p)
    assert contrastive_loss(student, teacher, 0.5, 0.6).item() == pytest.approx(expected.item() / 12, rel=1e-5)


def test_contrastive_loss_is_least_for_equal_features():
    teacher = torch.randn(2, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    others = torch.randn(8, 2, 16, 4, 4, generator=torch.Generator().manual_seed(1))
    equal = contrastive_loss(teacher, teacher, 0.4, 0.7)
    assert all(equal < contrastive_loss(other, teacher, 0.4, 0.7) for other in others)


def test_selection_weights_locations_by_the_teacher():
    selection = FeatureSelection([4])
    selection.thetas[0].data.fill_(-1.0)
    student, teacher = torch.randn(2, 1, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    (selected,) = selection([student], [teacher])
    theta = 1 / (1 + torch.e) + 0.5
    for c in range(4):
        weights = teacher[0, c].flatten().exp()
        weights = (weights / weights.sum()).view(3, 3)
        expected = student[0, c] * weights * (theta + teacher[0, c].mean())
        torch.testing.assert_close(selected[0, c], expected)


def test_each_teacher_meets_what_was_restored_from_the_other(model):
    """Changing the target teacher alone changes what the source teacher is compared with, and not the reverse."""
    model.eval()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    weight = next(model.target.parameters())
    with torch.no_grad():
        teachers, student = model.features(images)
        weight.mul_(1.5)
        moved_teachers, moved_student = model.features(images)
        weight.div_(1.5)
    changed = [not torch.allclose(a, b, rtol=1e-4) for a, b in zip(teachers, moved_teachers, strict=True)]
    assert changed == [False] * 3 + [True] * 3
    changed = [not torch.allclose(a, b, rtol=1e-4) for a, b in zip(student, moved_student, strict=True)]
    assert changed == [True] * 3 + [False] * 3


def test_the_source_teacher_never_moves_and_the_target_teacher_learns_slowly(model):
    optimization = model.configure_optimizers(Plan(epochs=10))["main"]
    assert [g["lr"] for g in optimization.optimizer.param_groups] == [5e-3, 1e-6]
    trained = {id(p) for g in optimization.optimizer.param_groups for p in g["params"]}
    assert not trained & {id(p) for p in model.source.parameters()}
    model.train()
    before = {key: value.clone() for key, value in model.source.state_dict().items()}
    loss = next(model.training_step(tiny_batches(2, (64, 64), 2)[0], 0)).loss
    loss.backward()
    assert all(torch.equal(before[key], value) for key, value in model.source.state_dict().items())
    assert next(model.target.parameters()).grad.abs().sum() > 0


def test_score_is_the_peak_of_the_smoothed_sum_of_six_distances(model):
    model.eval()
    model.fitted = True
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        prediction = model(images)
        pairs = zip(*model.features(images), strict=True)
        summed = sum(
            F.interpolate((1 - F.cosine_similarity(t, s))[:, None], (64, 64), mode="bilinear", align_corners=True)
            for t, s in pairs
        )
    torch.testing.assert_close(prediction.anomaly_map, summed[:, 0])
    kernel = torch.exp(-0.5 * (torch.arange(-2.0, 3.0) / 4) ** 2)  # 5 x 5, sigma 4
    kernel = torch.outer(kernel, kernel) / kernel.sum() ** 2
    smooth = F.conv2d(F.pad(summed, (2, 2, 2, 2), mode="reflect"), kernel[None, None])
    torch.testing.assert_close(prediction.score, smooth.flatten(1).amax(1))


def test_layers_that_do_not_halve_are_refused():
    with pytest.raises(ConfigError, match="halve the resolution"):
        create_model("uninet-efficientnet-lite0", weights="random", layers=("stride2", "stride8", "stride16"))
