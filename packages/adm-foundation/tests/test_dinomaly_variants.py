"""The variants: each equals the plain method exactly where it should, and does what it says where it should not."""

import pytest
import torch
import torch.nn.functional as F
from adcore.registry import create_model, model_card
from adcore.testing import tiny_batches
from adcore.training.device import seed_everything
from adcore.training.plan import Plan
from adcore.training.trainer import Trainer
from adm_foundation.dinomaly_auxiliary import NoiseClassifier
from adm_foundation.dinomaly_objectives import Focal, Gem, Plain, Scale, cosine_distances, mining_weights
from sklearn.metrics import roc_auc_score

SHORT = {
    "backbone": "dinov2_vit_small_14",
    "weights": "random",
    "target_layers": (0, 1),
    "decoder_depth": 2,
    "encoder_groups": ((0,), (1,)),
    "decoder_groups": ((0,), (1,)),
}
VARIANTS = {
    "gem": {"gem_p": 3.0, "mining_factor": 0.3},
    "focal": {"focal_gamma": 2.0},
    "aux": {"auxiliary_weight": 0.1},
    "scale": {"scale_weight": 0.01},
}


def tokens(seed, groups=2, batch=3, locations=16, dim=6):
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randn(groups, batch, locations, dim, generator=generator))


def trained(name, freeze=None, **config):
    """A model after five steps on the same images, and its losses."""
    seed_everything(3)
    model = create_model(name, **SHORT, **config)
    if freeze:
        model.get_parameter(freeze).requires_grad_(False)
    batches = tiny_batches(10, (56, 56), 2)
    summary = Trainer(model, Plan(epochs=1, batch_size=2), batches, 10).run()
    return model, summary.losses["loss"]


@pytest.fixture(scope="module")
def plain():
    return trained("dinomaly-small-224")


def assert_same(model, other):
    """The parts both have are equal to the last bit, and so are their maps."""
    ours, theirs = model.state_dict(), other.state_dict()
    common = ours.keys() & theirs.keys()
    assert any(key.startswith("decoder.1.") for key in common)
    assert [key for key in common if not torch.equal(ours[key], theirs[key])] == []


@pytest.mark.parametrize(("name", "config"), VARIANTS.items())
def test_cards_have_the_defaults_their_users_know(name, config):
    card = model_card(f"dinomaly-{name}")
    assert (card.image_size, card.crop_size, card.epochs, card.batch_size) == (448, 392, 10, 16)
    assert card.required_backbones == ("dinov2_vit_base_14",)
    assert {key: card.config[key] for key in config} == config


@pytest.mark.parametrize("groups", [1, 2, 3, 4])
def test_gem_with_p_1_is_the_mean_aggregation_exactly(groups):
    distances = cosine_distances(tokens(0, groups), tokens(1, groups))
    assert torch.equal(Gem(1.0, 0.3).aggregate(distances), Plain(0.1).aggregate(distances))


def test_gem_with_p_1_predicts_as_the_plain_model_exactly():
    seed_everything(0)
    plain = create_model("dinomaly-small-224", **SHORT).eval()
    gem = create_model("dinomaly-gem", **SHORT, gem_p=1.0).eval()
    gem.load_state_dict(plain.state_dict())
    plain.fitted = gem.fitted = True
    images = torch.rand(2, 3, 56, 56)
    with torch.no_grad():
        ours, theirs = gem(images), plain(images)
    assert torch.equal(ours.anomaly_map, theirs.anomaly_map)
    assert torch.equal(ours.score, theirs.score)


def test_gem_is_the_generalised_mean():
    distances = cosine_distances(tokens(0, 3), tokens(1, 3))
    expected = ((distances[:, 0] ** 3 + distances[:, 1] ** 3 + distances[:, 2] ** 3) / 3) ** (1 / 3)
    torch.testing.assert_close(Gem(3.0, 0.3).aggregate(distances), expected)


def test_gem_mines_on_the_aggregated_map():
    """Gradients of the easy locations are 0.3 times what they were, in every group; the rest keep theirs."""
    encoded = tokens(0)
    every, mined = ([t.requires_grad_() for t in tokens(1)] for _ in range(2))
    gem = Gem(3.0, 0.3)
    loss = gem.loss(encoded, every, 0.0)
    loss.backward()
    same = gem.loss(encoded, mined, 0.75)
    same.backward()
    assert torch.equal(loss, same)
    weights = mining_weights(gem.aggregate(cosine_distances(encoded, every)), 0.75, 0.3)
    assert weights.eq(1).sum() == 12
    for a, b in zip(every, mined, strict=True):
        torch.testing.assert_close(b.grad, a.grad * weights[..., None])


def test_gem_has_gradients_where_all_distances_are_zero():
    encoded = tokens(0)
    decoded = [t.clone().requires_grad_() for t in encoded]
    Gem(3.0, 0.3).loss(encoded, decoded, 0.5).backward()
    assert all(t.grad.isfinite().all() for t in decoded)


def test_focal_with_gamma_0_is_the_plain_cosine_loss_exactly():
    encoded, decoded = tokens(0), [t.requires_grad_() for t in tokens(1)]
    loss = Focal(0.0).loss(encoded, decoded, easy_share=0.9)
    reference = [t.detach().clone().requires_grad_() for t in decoded]
    distances = [1 - F.cosine_similarity(e, d, dim=-1) for e, d in zip(encoded, reference, strict=True)]
    expected = torch.stack(distances, dim=1).mean()
    assert torch.equal(loss, expected)
    loss.backward()
    expected.backward()
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(decoded, reference, strict=True))


def test_focal_weights_locations_by_their_relative_distance():
    encoded, decoded = tokens(0), [t.requires_grad_() for t in tokens(1)]
    loss = Focal(2.0).loss(encoded, decoded, easy_share=0.9)
    distances = cosine_distances(encoded, decoded)
    expected = sum(((d / d.max()) ** 2 * d).mean() for d in distances.unbind(1)) / 2
    torch.testing.assert_close(loss, expected)
    weights = torch.stack([(d / d.max()).detach() ** 2 for d in distances.unbind(1)], dim=1)
    gradient = torch.autograd.grad((weights * distances).mean(), decoded[0])[0]
    torch.testing.assert_close(torch.autograd.grad(loss, decoded[0])[0], gradient)


def test_focal_survives_a_perfect_reconstruction():
    encoded = tokens(0)
    assert Focal(2.0).loss(encoded, [t.clone() for t in encoded], 0.0).isfinite()


@pytest.mark.parametrize("groups", [1, 2, 3, 4, 7])
def test_scale_with_zero_logits_is_the_mean_aggregation_exactly(groups):
    distances = cosine_distances(tokens(0, groups), tokens(1, groups))
    assert torch.equal(Scale(groups, 0.01, 0.1).aggregate(distances), Plain(0.1).aggregate(distances))


def test_scale_with_frozen_zero_logits_trains_and_predicts_as_the_plain_model_exactly(plain):
    scaled, _ = trained("dinomaly-scale", freeze="objective.logits")
    assert_same(scaled, plain[0])
    images = torch.rand(2, 3, 56, 56)
    with torch.no_grad():
        assert torch.equal(scaled(images).anomaly_map, plain[0](images).anomaly_map)


def test_scale_learns_its_logits_and_adds_the_weighted_map_to_the_loss():
    model, _ = trained("dinomaly-scale")
    assert model.objective.logits.abs().min() > 0
    encoded, decoded = tokens(0), tokens(1)
    objective = Scale(2, 0.25, 0.1)
    objective.logits.data = torch.tensor([1.0, -1.0])
    distances = cosine_distances(encoded, decoded)
    weights = torch.tensor([1.0, -1.0]).softmax(0)
    expected = Plain(0.1).loss(encoded, decoded, 0.0) + 0.25 * torch.einsum("s,bsn->bn", weights, distances).mean()
    torch.testing.assert_close(objective.loss(encoded, decoded, 0.0), expected)


@pytest.mark.parametrize("weight", [0.0, 0.1])
def test_aux_trains_the_plain_decoder_exactly(plain, weight):
    """At weight 0 as promised, and at any other: the classifier reads the frozen encoder alone."""
    auxiliary, loss = trained("dinomaly-aux", auxiliary_weight=weight)
    assert loss == plain[1]
    assert_same(auxiliary, plain[0])
    assert bool(auxiliary.auxiliary.output.weight.abs().max() > 0) == (weight > 0)


def test_aux_averages_its_logits_into_the_map():
    model, _ = trained("dinomaly-aux")
    images = torch.rand(1, 3, 56, 56)
    with torch.no_grad():
        before = model(images).anomaly_map
        model.auxiliary.output.bias += 3.0
        torch.testing.assert_close(model(images).anomaly_map, before + 1.5)


def test_aux_learns_to_see_noise():
    """After a short training it separates perturbed from clean tokens that it has never seen."""
    torch.manual_seed(0)
    mixing = torch.randn(4, 384)
    head = NoiseClassifier(384, noise_std=1.0)
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(1)

    def clean():  # correlated channels, of which four are free
        return torch.randn(4, 64, 4, generator=generator) @ mixing

    for _ in range(300):
        optimizer.zero_grad()
        head.loss(clean(), (8, 8), generator).backward()
        optimizer.step()
    noisy, mask = head.perturb(clean(), (8, 8), generator)
    assert 0.05 < mask.mean() < 0.6
    with torch.no_grad():
        assert roc_auc_score(mask.flatten(), head(noisy).flatten()) > 0.8


def test_perturbation_touches_the_mask_alone():
    head, tokens_ = NoiseClassifier(8, 0.5), torch.randn(2, 36, 8)
    noisy, mask = head.perturb(tokens_, (6, 6), torch.Generator().manual_seed(0))
    assert mask.any()
    assert torch.equal(noisy[mask == 0], tokens_[mask == 0])
    assert not torch.isclose(noisy[mask == 1], tokens_[mask == 1]).all(-1).any()
