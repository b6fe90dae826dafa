"""Dinomaly's parts against brute force, its cards against their table, its errors."""

import pytest
import torch
import torch.nn.functional as F
from adcore.errors import ConfigError
from adcore.registry import create_model, model_card
from adcore.training.plan import Plan
from adm_foundation.dinomaly import Dinomaly, LinearAttention
from adm_foundation.dinomaly_objectives import Plain, cosine_distances, mining_weights

SHORT = {
    "weights": "random",
    "target_layers": (0, 1),
    "decoder_depth": 2,
    "encoder_groups": ((0,), (1,)),
    "decoder_groups": ((0,), (1,)),
}
LAYERS = tuple(range(2, 10))
LARGE_LAYERS = (4, 6, 8, 10, 12, 14, 16, 18)
CARDS = [  # size, image size, epochs, batch size, target layers
    ("small", 224, 15, 32, LAYERS),
    ("small", 392, 10, 24, LAYERS),
    ("small", 448, 10, 16, LAYERS),
    ("base", 224, 15, 16, LAYERS),
    ("base", 392, 10, 12, LAYERS),
    ("base", 448, 10, 8, LAYERS),
    ("large", 224, 15, 8, LARGE_LAYERS),
    ("large", 392, 10, 6, LARGE_LAYERS),
    ("large", 448, 10, 4, LARGE_LAYERS),
]


@pytest.fixture(scope="module")
def model():
    built = create_model("dinomaly-small-224", **SHORT)
    built.fitted = True
    return built.eval()


def tokens(seed, groups=2, batch=2, locations=9, dim=6):
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randn(groups, batch, locations, dim, generator=generator))


@pytest.mark.parametrize(("size", "image_size", "epochs", "batch_size", "layers"), CARDS)
def test_cards_have_the_defaults_their_users_know(size, image_size, epochs, batch_size, layers):
    card = model_card(f"dinomaly-{size}-{image_size}")
    assert (card.image_size, card.epochs, card.batch_size) == (image_size, epochs, batch_size)
    with torch.device("meta"):  # the whole network, without its memory
        built = create_model(card.name, weights="random")
    assert tuple(built.encoder.indices) == layers
    assert len(built.encoder.net.blocks) == layers[-1] + 1, "blocks behind the last target layer are kept for nothing"
    assert (len(built.decoder), built.bottleneck.drop.p) == (8, 0.2)
    assert built.encoder.channels[0] == {"small": 384, "base": 768, "large": 1024}[size]


def test_short_name_is_the_base_model_at_392():
    assert model_card("dinomaly").name == "dinomaly-base-392"


def test_optimizer_follows_the_paper():
    with torch.device("meta"):
        built = create_model("dinomaly-small-224", **SHORT)
    main = built.configure_optimizers(Plan(epochs=2, steps_per_epoch=500))["main"]
    assert (main.clip_norm, main.interval) == (0.1, "step")
    assert len(main.optimizer.param_groups[0]["params"]) == len(
        [*built.bottleneck.parameters(), *built.decoder.parameters()]
    )
    rates = []
    for _ in range(1001):
        rates.append(main.optimizer.param_groups[0]["lr"])
        main.optimizer.step()  # no gradients: nothing moves
        main.scheduler.step()
    assert rates[0] == 0
    assert rates[100] == max(rates) == pytest.approx(2e-3)
    assert rates[-1] == pytest.approx(2e-4)


def test_linear_attention_is_attention_with_another_kernel():
    """All pairs by brute force: weights phi(q) phi(k), normalised over the keys."""
    torch.manual_seed(0)
    attention, x = LinearAttention(12, heads=3), torch.randn(2, 5, 12)
    q, k, v = attention.qkv(x).reshape(2, 5, 3, 3, 4).unbind(2)  # each (B, N, heads, d)
    result = torch.zeros(2, 5, 3, 4)
    for b in range(2):
        for h in range(3):
            for i in range(5):
                weights = torch.stack([(F.elu(q[b, i, h]) + 1) @ (F.elu(k[b, j, h]) + 1) for j in range(5)])
                result[b, i, h] = (weights / weights.sum()) @ v[b, :, h]
    torch.testing.assert_close(attention(x), attention.proj(result.flatten(2)))


@pytest.mark.parametrize(("easy_share", "hard"), [(0.0, 20), (0.5, 10), (0.75, 5), (1.0, 1)])
def test_mining_keeps_the_hardest_share(easy_share, hard):
    distances = torch.randperm(20, generator=torch.Generator().manual_seed(3)).float().reshape(4, 5)
    weights = mining_weights(distances, easy_share, 0.1)
    assert torch.equal(weights == 1, distances >= 20 - hard)
    assert torch.equal(weights.unique(), torch.tensor([0.1, 1.0] if hard < 20 else [1.0]))


def test_hard_mining_changes_gradients_and_not_the_loss():
    encoded = tokens(0)
    plain, mined = ([t.requires_grad_() for t in tokens(1)] for _ in range(2))
    loss = Plain(0.1).loss(encoded, plain, 0.0)
    loss.backward()
    same = Plain(0.1).loss(encoded, mined, 0.7)
    same.backward()
    assert torch.equal(loss, same)
    expected = sum(
        (1 - F.cosine_similarity(e.reshape(2, -1), d.reshape(2, -1))).mean()
        for e, d in zip(encoded, plain, strict=True)
    )
    torch.testing.assert_close(loss, expected / 2)
    for s, (a, b) in enumerate(zip(plain, mined, strict=True)):
        distances = cosine_distances(encoded, plain)[:, s]
        easy = distances < distances.flatten().sort(descending=True).values[int(18 * 0.3) - 1]
        assert easy.sum() == 18 - int(18 * 0.3)
        torch.testing.assert_close(b.grad[easy], a.grad[easy] * 0.1)
        assert torch.equal(b.grad[~easy], a.grad[~easy])


def test_score_is_the_mean_of_the_top_pixels(model):
    """The map's maximum bounds the score, and a share of 1 gives the mean of the blurred map."""
    images = torch.rand(2, 3, 56, 84, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        prediction = model(images)
        model.max_ratio = 1.0
        mean = model(images).score
        model.max_ratio = 0.01
    assert prediction.anomaly_map.shape == (2, 56, 84)
    flat = prediction.anomaly_map.flatten(1)
    assert (prediction.score < flat.max(1).values).all()
    assert (prediction.score > flat.quantile(0.95, dim=1)).all()
    torch.testing.assert_close(mean, flat.mean(1), rtol=0.02, atol=0)


def test_encoder_is_frozen_and_stays_in_evaluation_mode(model):
    model.train()
    assert not model.encoder.training
    assert not model.encoder.net.training
    assert model.bottleneck.drop.training
    layers = model.encoder.tokens(torch.zeros(1, 3, 28, 28))
    assert [tuple(t.shape) for t in layers] == [(1, 1 + 4, 384)] * 2
    assert not any(t.requires_grad for t in layers)
    model.eval()


def test_registers_are_selectable():
    built = create_model("dinomaly-small-224", **SHORT, backbone="dinov2reg_vit_small_14")
    built.fitted = True
    assert built.encoder.prefix == 5
    with torch.no_grad():
        assert built.eval()(torch.rand(1, 3, 28, 28)).anomaly_map.shape == (1, 28, 28)


def test_input_at_the_encoders_own_grid_uses_its_positions_unchanged(model):
    net, images = model.encoder.net, torch.rand(1, 3, 518, 518)
    seen = []
    handle = net.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.encoder.tokens(images)
    handle.remove()
    assert torch.equal(seen[0][:, 1:], net.patch_embed(images) + net.pos_embed[:, 1:])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"target_layers": (0, 12)}, "layers 0 to 11"),
        ({"backbone": "resnet18"}, "no plain vision transformer; choose dinov2_vit_base_14"),
        ({"backbone": "deit_base_distilled_patch16_384"}, "no plain vision transformer"),
        ({"target_layers": ()}, "target_layers: tuple should have at least 1 item"),
        ({"encoder_groups": ((0,), (2,))}, "encoder_groups"),
        ({"decoder_groups": ((0, 1),)}, "as many decoder_groups"),
        ({"decoder_groups": ((0,), ())}, "no group may be empty"),
        ({"max_ratio": 0}, "max_ratio"),
    ],
)
def test_wrong_settings_are_named(override, message):
    with pytest.raises(ConfigError, match=message):
        create_model("dinomaly-small-224", **{**SHORT, **override})


def test_image_size_that_is_no_multiple_names_the_nearest(model):
    with pytest.raises(ConfigError, match="256 x 100 is not a multiple of 14; nearest: 252 x 98"):
        model(torch.zeros(1, 3, 256, 100))


def test_missing_weights_are_an_error_and_never_random(monkeypatch, tmp_path):
    from adcore.errors import WeightsError

    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(WeightsError, match="dinov2_vits14_pretrain.pth"):
        Dinomaly("dinov2_vit_small_14")


@pytest.mark.parametrize("registers", [False, True])
def test_weights_as_the_authors_of_dinov2_publish_them(tmp_path, registers):
    """Their names: `mask_token`, `register_tokens`, a position for the class token; loaded into a shortened encoder."""
    name = "dinov2reg_vit_small_14" if registers else "dinov2_vit_small_14"
    net = create_model("dinomaly-small-224", **SHORT, backbone=name).encoder.net
    state = {key: torch.randn_like(value) for key, value in net.state_dict().items()}
    published = dict(state, mask_token=torch.randn(1, 384))
    published |= {"norm.weight": torch.randn(384), "norm.bias": torch.randn(384)}
    if registers:
        position = torch.randn(1, 1, 384)
        published["register_tokens"] = published.pop("reg_token")
        published["pos_embed"] = torch.cat([position, state["pos_embed"]], dim=1)
        state["cls_token"] = state["cls_token"] + position  # timm keeps their sum
    torch.save(published, tmp_path / "weights.pth")
    loaded = create_model("dinomaly-small-224", **{**SHORT, "weights": str(tmp_path / "weights.pth")}, backbone=name)
    for key, value in loaded.encoder.net.state_dict().items():
        torch.testing.assert_close(value, state[key], msg=key)
