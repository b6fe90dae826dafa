"""DSR: its codes, its latent anomalies, and its three stages, one after the other."""

import pytest
import torch
from adcore.errors import WeightsError
from adcore.registry import create_model
from adcore.testing.tiny import tiny_batches, tiny_images
from adcore.training.device import seed_everything
from adcore.training.plan import Plan
from adcore.training.trainer import Trainer
from adm_recon.dsr import disturb
from adm_recon.vqvae import Quantizer, TwoLevelVQ, authors_name
from safetensors.torch import save_file

SMALL = {"embedding_dim": 8, "num_embeddings": 40}


def fit(model, epochs=1, images=4):
    return Trainer(model, Plan(epochs=epochs, batch_size=2), tiny_batches(images, (64, 64), 2), images).run()


def test_nearest_code_by_brute_force():
    torch.manual_seed(0)
    quantizer, features = Quantizer(30, 4), torch.randn(2, 4, 3, 5)
    nearest = quantizer.nearest(features)
    for b in range(2):
        for y in range(3):
            for x in range(5):
                distances = (quantizer.codes - features[b, :, y, x]).square().sum(1)
                assert torch.equal(nearest[b, :, y, x], quantizer.codes[distances.argmin()])


def test_gradient_passes_straight_through_the_codes():
    quantizer, features = Quantizer(10, 4), torch.randn(1, 4, 2, 2, requires_grad=True)
    (quantizer(features) * 3).sum().backward()
    assert torch.equal(features.grad, torch.full_like(features, 3))
    assert quantizer.codes.grad is None


def test_idle_codes_move_onto_features_and_used_ones_stay():
    torch.manual_seed(0)
    quantizer, features = Quantizer(20, 4).train(), 100 + torch.randn(1, 4, 4, 4)
    before = quantizer.codes.detach().clone()
    quantizer.nearest(features)
    used = quantizer.used.clone()
    assert 0 < used.sum() < 20
    quantizer.restart(features)
    assert torch.equal(quantizer.codes[used], before[used])
    flat = features.movedim(1, -1).flatten(0, -2)
    assert (torch.cdist(quantizer.codes[~used], flat).amin(1) == 0).all()


@pytest.mark.parametrize("strength", [0.2, 0.6, 1.0])
def test_disturbed_codes_have_the_allowed_rank(strength):
    torch.manual_seed(0)
    quantizer, features = Quantizer(100, 4).double(), torch.randn(2, 4, 8, 8, dtype=torch.double)  # ranks without ties
    codes = quantizer.nearest(features)
    mask = torch.rand(2, 8, 8) < 0.5
    disturbed = disturb(quantizer, features, codes, mask, torch.full((2,), strength, dtype=torch.double))
    assert torch.equal(disturbed.movedim(1, -1)[~mask], codes.movedim(1, -1)[~mask])
    inside, placed = features.movedim(1, -1)[mask], disturbed.movedim(1, -1)[mask]
    order = (inside[:, None] - quantizer.codes).square().sum(2).argsort(1)
    code = torch.cdist(placed, quantizer.codes).argmin(1)
    rank = (order == code[:, None]).nonzero()[:, 1]
    assert rank.min() >= 5  # the nearest 5 % of the codes are spared
    assert rank.max() < 100 * strength
    assert rank.max() > 80 * strength


def test_where_nothing_is_disturbed_codes_stay_bit_for_bit():
    model = create_model("dsr", anomaly_probability=0.0, **SMALL)
    q_hi, q_lo, bad_hi, bad_lo, mask = model.latent_anomalies(tiny_images(2, (64, 64)))
    assert torch.equal(q_hi, bad_hi)
    assert torch.equal(q_lo, bad_lo)
    assert not mask.any()


def test_disturbed_codes_lie_inside_the_mask():
    torch.manual_seed(0)
    model = create_model("dsr", anomaly_probability=1.0, **SMALL)
    _, q_lo, _, bad_lo, mask = model.latent_anomalies(tiny_images(8, (64, 64)))
    moved = (q_lo != bad_lo).any(1).repeat_interleave(8, 1).repeat_interleave(8, 2)
    assert moved.any()
    assert torch.equal(moved | mask, mask)


def test_each_stage_trains_its_own_part():
    seed_everything(0)
    model = create_model("dsr", vq_ratio=0.4, upsampling_ratio=0.5, anomaly_probability=1.0, **SMALL)
    before = {key: value.clone() for key, value in model.named_parameters()}
    step, moved = model.training_step, []

    def watched(batch, number):
        yield from step(batch, number)
        moved.append({key.split(".")[0] for key, p in model.named_parameters() if not torch.equal(p, before[key])})
        before.update({key: value.clone() for key, value in model.named_parameters()})

    model.training_step = watched
    fit(model, epochs=3)
    restoring = {"restrict_hi", "restrict_lo", "object_decoder", "detector"}
    assert moved == [{"vq"}] * 2 + [restoring] * 2 + [{"upsampler"}] * 2


@pytest.mark.parametrize("naming", [str, authors_name], ids=["own names", "authors' names"])
def test_given_weights_are_used_and_never_trained(tmp_path, naming):
    torch.manual_seed(3)
    given = TwoLevelVQ(40, 8)
    save_file(
        {naming(key): value.detach().contiguous() for key, value in given.named_parameters()},
        tmp_path / "vq.safetensors",
    )
    model = create_model("dsr", vq_weights=str(tmp_path / "vq.safetensors"), **SMALL)
    fit(model)
    assert model.stage_ends[0] == 0
    assert all(torch.equal(value, given.get_parameter(key)) for key, value in model.vq.named_parameters())


def test_weights_that_do_not_fit_are_named(tmp_path):
    save_file(
        {key: value.detach().contiguous() for key, value in TwoLevelVQ(30, 8).named_parameters()},
        tmp_path / "vq.safetensors",
    )
    with pytest.raises(WeightsError, match=r"vq.safetensors does not fit.*codes"):
        fit(create_model("dsr", vq_weights=str(tmp_path / "vq.safetensors"), **SMALL))


@pytest.mark.slow
def test_autoencoder_learns_to_reconstruct_from_codes():
    seed_everything(0)
    model = TwoLevelVQ(64, 16).train()
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    images, losses = tiny_images(4, (64, 64)), []
    for step in range(60):
        terms = model.losses(images, step)
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
        losses.append(terms["reconstruction"].item())
    assert losses[-1] < 0.3 * losses[0]
    assert losses[-1] < images.var()
