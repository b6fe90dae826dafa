"""The coupling block and the map norm, against autograd and brute force."""

import pytest
import torch
from adcore.errors import ConfigError
from adm_flow.blocks import CouplingBlock, MapNorm, convolutions
from FrEIA.modules import AllInOneBlock
from torch import nn


@pytest.fixture
def block(randomise) -> CouplingBlock:
    torch.manual_seed(0)
    subnet = convolutions(3, 1.0)
    return randomise(CouplingBlock([(5, 1, 1)], subnet_constructor=subnet, affine_clamping=2.0)).double()


def test_coupling_inverts(block):
    x = torch.randn(3, 5, 4, 6, dtype=torch.float64)
    (z,), forth = block([x])
    (back,), rev = block([z], rev=True)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(rev, -forth)


def test_coupling_log_det_is_that_of_autograd(block, log_det):
    x = torch.randn(2, 5, 2, 3, dtype=torch.float64)
    torch.testing.assert_close(block([x])[1], log_det(lambda s: block([s])[0][0], x))


def test_index_permutation_is_freias_matrix(block):
    theirs = AllInOneBlock([(5, 1, 1)], subnet_constructor=convolutions(3, 1.0), affine_clamping=2.0).double()
    state = {key: value for key, value in block.state_dict().items() if key != "permutation"}
    matrix = torch.eye(5, dtype=torch.float64)[block.permutation][:, :, None, None]
    theirs.load_state_dict({**state, "w_perm": matrix, "w_perm_inv": matrix.transpose(0, 1)})
    x = torch.randn(2, 5, 4, 4, dtype=torch.float64)
    (ours,), our_det = block([x])
    (expected,), their_det = theirs([x])
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(our_det, their_det)


def test_permutation_follows_the_torch_seed():
    def build(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return CouplingBlock([(64, 1, 1)], subnet_constructor=nn.Linear).permutation

    assert torch.equal(build(3), build(3))
    assert not torch.equal(build(3), build(4))
    assert torch.equal(build(3).sort().values, torch.arange(64))


def test_map_norm_equals_its_formula_and_takes_the_size_of_the_first_map():
    norm, x = MapNorm(3), torch.randn(2, 3, 4, 5)
    parameters = list(norm.parameters())
    norm.train()(x)
    assert all(before is after for before, after in zip(parameters, norm.parameters(), strict=True))
    assert norm.weight.shape == (3, 4, 5)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1.5), norm.bias.normal_()
    mean, variance = x.mean((1, 2, 3), keepdim=True), x.var((1, 2, 3), unbiased=False, keepdim=True)
    expected = (x - mean) / (variance + 1e-5).sqrt() * norm.weight + norm.bias
    torch.testing.assert_close(norm.eval()(x), expected)
    with pytest.raises(ConfigError, match=r"\(4, 5\)"):
        norm(torch.randn(2, 3, 4, 6))


def test_map_norm_loads_the_size_that_was_trained():
    trained, x = MapNorm(3), torch.randn(2, 3, 4, 5)
    trained.train()(x)
    with torch.no_grad():
        trained.weight.normal_()
    loaded = MapNorm(3)
    loaded.load_state_dict(trained.state_dict())
    assert torch.equal(loaded.eval()(x), trained.eval()(x))


def test_map_norm_refuses_another_network():
    with pytest.raises(RuntimeError, match="size mismatch"):
        MapNorm(3).load_state_dict(MapNorm(4).state_dict())
