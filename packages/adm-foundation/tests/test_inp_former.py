"""INP-Former's and Dinomaly2's parts against brute force, and their cards against their papers."""

import pytest
import torch
import torch.nn.functional as F
from adcore.registry import create_model, model_card
from adcore.training.plan import Plan
from adm_foundation.dinomaly import NarrowMlp
from adm_foundation.dinomaly_objectives import cosine_distances
from adm_foundation.inp_former import CrossAttention, GuidedBlock, coherence_loss, soft_mining_loss

SHORT = {
    "backbone": "dinov2reg_vit_small_14",
    "weights": "random",
    "target_layers": (0, 1),
    "decoder_depth": 2,
    "encoder_groups": ((0,), (1,)),
    "decoder_groups": ((0,), (1,)),
}


def tokens(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", ["dinomaly2", "inp-former"])
def test_cards_have_the_settings_of_the_papers(name):
    card = model_card(name)
    assert (card.image_size, card.crop_size, card.batch_size, card.epochs) == (448, 392, 16, 10)
    with torch.device("meta"):
        built = create_model(name, weights="random")
    assert built.encoder.indices == [*range(2, 10)]
    assert (len(built.decoder), len(built.encoder_groups)) == (8, 2)
    rate = built.configure_optimizers(Plan(epochs=1, steps_per_epoch=1000))["main"].optimizer.defaults["lr"]
    if name == "dinomaly2":
        assert (built.bottleneck.narrow.out_features, built.bottleneck.drop.p, rate) == (256, 0.4, 2e-3)
    else:
        assert (len(built.extractor.tokens), built.coherence_weight, built.mining_gamma, rate) == (6, 0.2, 3.0, 1e-3)


@pytest.mark.parametrize("focused", [True, False])
def test_attention_to_the_prototypes_by_brute_force(focused):
    torch.manual_seed(0)
    attention, x, others = CrossAttention(12, 3, focused), tokens(2, 5, 12), tokens(2, 4, 12, seed=1)
    if not focused:
        attention.scale.data = torch.tensor([0.5, 1.0, 2.0])[:, None, None]
    q = attention.q(x).reshape(2, 5, 3, 4)
    k, v = attention.kv(others).reshape(2, 4, 2, 3, 4).unbind(2)
    expected = torch.zeros(2, 5, 3, 4)
    for b in range(2):
        for h in range(3):
            for n in range(5):
                if focused:  # over the root of 4 channels a head
                    weights = torch.stack([q[b, n, h] @ k[b, m, h] / 2 for m in range(4)]).softmax(0)
                else:
                    cosines = [F.cosine_similarity(q[b, n, h], k[b, m, h], dim=0) for m in range(4)]
                    weights = (attention.scale[h, 0, 0] * torch.stack(cosines)).clamp(min=0)
                expected[b, n, h] = sum(weights[m] * v[b, m, h] for m in range(4))
    torch.testing.assert_close(attention(x, others), attention.proj(expected.flatten(2)))


def test_a_decoder_block_has_no_way_around_the_prototypes():
    """With one prototype every patch becomes a multiple of the same vector: nothing else of the patch comes through."""
    torch.manual_seed(0)
    block = GuidedBlock(8, heads=1)
    block.mlp.fc2.weight.data.zero_()  # leaves what the attention gives
    block.attn.proj.bias.data.zero_()
    out = block(tokens(1, 6, 8), tokens(1, 1, 8, seed=1))[0]
    assert torch.linalg.matrix_rank(out, rtol=1e-4) == 1


def test_coherence_is_the_distance_to_the_nearest_prototype():
    patches, prototypes = tokens(2, 7, 5), tokens(2, 3, 5, seed=1)
    nearest = [
        min(float(1 - F.cosine_similarity(patches[b, n], prototypes[b, m], dim=0)) for m in range(3))
        for b in range(2)
        for n in range(7)
    ]
    assert float(coherence_loss(patches, prototypes)) == pytest.approx(sum(nearest) / 14, abs=1e-6)


def test_soft_mining_weights_gradients_by_the_relative_distance():
    encoded = [tokens(2, 9, 6), tokens(2, 9, 6, seed=1)]
    plain, mined = ([tokens(2, 9, 6, seed=s).requires_grad_() for s in (2, 3)] for _ in range(2))
    equal, weighted = soft_mining_loss(encoded, plain, 0.0), soft_mining_loss(encoded, mined, 3.0)
    equal.backward()
    weighted.backward()
    torch.testing.assert_close(equal, weighted)  # the value is the same, the gradients are not
    distances = cosine_distances(encoded, [one.detach() for one in plain])
    for s in range(2):
        weights = (distances[:, s] / distances[:, s].mean()) ** 3
        torch.testing.assert_close(mined[s].grad, plain[s].grad * weights[..., None])


def test_recentred_targets_do_not_know_what_all_tokens_share():
    model = create_model("dinomaly2", **SHORT)
    one = tokens(2, 5 + 9, 384)  # a class token, four registers, patches
    target = model.target(one)
    assert target.shape == (2, 9, 384)
    torch.testing.assert_close(model.target(one + 3 * tokens(1, 1, 384, seed=2)), target, rtol=1e-4, atol=1e-4)
    patch = one[1, 7] - one[1, 0]
    expected = (patch - patch.mean()) / (patch.var(correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(target[1, 2], expected)
    assert torch.equal(create_model("dinomaly-reg-small", **SHORT).target(one), one[:, 5:])


def test_the_narrow_bottleneck_has_the_rank_of_its_width():
    torch.manual_seed(0)
    bottleneck = NarrowMlp(24, 3, 0.4)
    hidden = bottleneck.narrow(tokens(1, 50, 24))
    assert hidden.shape == (1, 50, 3)
    first, second = (bottleneck.train()(tokens(1, 50, 24)) for _ in range(2))
    assert not torch.equal(first, second), "its noise"
    assert torch.equal(bottleneck.eval()(tokens(1, 50, 24)), bottleneck(tokens(1, 50, 24)))
