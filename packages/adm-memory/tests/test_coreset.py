"""Farthest-first selection against plain greedy: one pass over all points for each pick."""

import pytest
import torch
from adcore.errors import ConfigError, TrainingError
from adm_memory.coreset import farthest_first, random_projection
from hypothesis import assume, given, settings
from hypothesis import strategies as st

CLEAR = 3e-6  # a margin of `plain_greedy` that rounding does not reach


def plain_greedy(features, count, start=0):
    """Indices as the definition has them, in float64 and by differences, and by how much the closest choice was decided.

    The margin is relative to the largest squared distance from the mean: float32 rounding is about 1e-6 of that.
    """
    x = features.double()
    nearest, picks, margin = torch.full((len(x),), torch.inf, dtype=x.dtype), [start], torch.inf
    scale = (x - x.mean(0)).square().sum(1).max().item()
    for _ in range(count - 1):
        nearest = torch.minimum(nearest, (x - x[picks[-1]]).square().sum(1))
        nearest[picks] = -1
        (first, second), (index, _) = nearest.topk(2)
        margin = min(margin, (first - second).item() / scale)
        picks.append(int(index))
    return picks, margin


def assert_greedy(features, picks, start=0, tolerance=1e-5):
    """Each pick is the farthest from those before it, up to rounding."""
    x = features.double()
    scale = (x - x.mean(0)).square().sum(1).max().item()
    nearest = torch.full((len(x),), torch.inf, dtype=x.dtype)
    assert len(set(picks.tolist())) == len(picks)
    assert picks[0] == start
    for i, pick in enumerate(picks.tolist()):
        if i:
            assert nearest[pick] >= nearest.max() - tolerance * scale
        nearest = torch.minimum(nearest, (x - x[pick]).square().sum(1))
        nearest[pick] = -1


@pytest.fixture
def clusters():
    """3,000 points in 30 dense clusters, far from the origin: greedy order is decided by small differences."""
    g = torch.Generator().manual_seed(3)
    centers = torch.randn(30, 24, generator=g) * 4 + 20
    return centers[torch.randint(30, (3000,), generator=g)] + 0.3 * torch.randn(3000, 24, generator=g)


def test_points_on_a_line():
    x = torch.tensor([[0.0], [1.0], [10.0], [4.0], [6.5]])
    assert farthest_first(x, 5).tolist() == [0, 2, 3, 4, 1]
    assert farthest_first(x, 5, start=3).tolist() == [3, 2, 0, 4, 1]


@pytest.mark.parametrize("block", [pytest.param(1, marks=pytest.mark.slow), 2, 7, 64, 1024, 5000])
def test_same_picks_in_the_same_order_as_plain_greedy(block):
    x = torch.randn(2000, 24, generator=torch.Generator().manual_seed(4))
    expected, margin = plain_greedy(x, 150, 17)
    assert margin > CLEAR
    assert farthest_first(x, 150, start=17, block=block).tolist() == expected


def test_more_points_than_are_folded_at_a_time():
    x = torch.randn(70_000, 5, generator=torch.Generator().manual_seed(2))
    expected, margin = plain_greedy(x, 60)
    assert margin > CLEAR
    assert farthest_first(x, 60).tolist() == expected


@pytest.mark.parametrize(("block", "count"), [(1, 50), (64, 300), (1024, 300)])  # in blocks of 1 each pick is a pass
def test_dense_clusters_far_from_the_origin(clusters, block, count):
    assert_greedy(clusters, farthest_first(clusters, count, start=17, block=block), start=17)


def test_uniform_noise_where_all_distances_are_alike():
    x = torch.rand(4000, 64, generator=torch.Generator().manual_seed(0))
    assert_greedy(x, farthest_first(x, 300))


def test_every_point_once_when_all_are_asked_for(clusters):
    picks = farthest_first(clusters[:500], 500, start=9, block=64)
    assert sorted(picks.tolist()) == list(range(500))
    assert_greedy(clusters[:500], picks, start=9)


def test_no_duplicate_before_every_distinct_point():
    g = torch.Generator().manual_seed(1)
    distinct = torch.randn(40, 6, generator=g)
    x = distinct[torch.arange(400) % 40]
    picks = farthest_first(x, 100)
    assert sorted(p % 40 for p in picks[:40].tolist()) == list(range(40))
    assert len(set(picks.tolist())) == 100


@pytest.mark.parametrize("value", [0.0, 3.7, -1e4])
def test_constant_features(value):
    picks = farthest_first(torch.full((50, 8), value), 20, start=5, block=4)
    assert picks[0] == 5
    assert len(set(picks.tolist())) == 20


@pytest.mark.parametrize("offset", [1e2, 1e3])
def test_a_large_common_offset_does_not_drown_the_distances(clusters, offset):
    x = clusters + offset
    assert_greedy(x, farthest_first(x, 150))


def test_a_large_scale_and_a_small_one(clusters):
    expected = farthest_first(clusters, 100).tolist()
    assert farthest_first(clusters * 2.0**20, 100).tolist() == expected
    assert farthest_first(clusters * 2.0**-20, 100).tolist() == expected


def test_input_stays_as_it_was(clusters):
    before = clusters.clone()
    farthest_first(clusters, 50)
    assert torch.equal(clusters, before)


def test_strided_input(clusters):
    assert farthest_first(clusters.t().contiguous().t(), 50).tolist() == farthest_first(clusters, 50).tolist()


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 60),
    dims=st.integers(1, 5),
    levels=st.integers(1, 6),
    block=st.integers(1, 70),
    seed=st.integers(0, 2**16),
    data=st.data(),
)
def test_any_points_with_ties_and_duplicates(n, dims, levels, block, seed, data):
    x = torch.randint(levels, (n, dims), generator=torch.Generator().manual_seed(seed)).float()
    count, start = data.draw(st.integers(1, n)), data.draw(st.integers(0, n - 1))
    assert_greedy(x, farthest_first(x, count, start, block=block), start)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 200), seed=st.integers(0, 2**16))
def test_picks_follow_the_points_through_a_permutation(n, seed):
    g = torch.Generator().manual_seed(seed)
    x, order = torch.randn(n, 7, generator=g), torch.randperm(n, generator=g)
    count = max(1, n // 3)
    assume(plain_greedy(x, count, int(order[0]))[1] > CLEAR)
    picks = farthest_first(x, count, start=int(order[0]), block=16)
    assert torch.equal(order[farthest_first(x[order], count, start=0, block=16)], picks)


def test_progress_rises_to_the_count(clusters):
    seen = []
    farthest_first(clusters, 120, block=32, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (120, 120)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert {total for _, total in seen} == {120}


@pytest.mark.parametrize(("count", "start"), [(0, 0), (-1, 0), (11, 0), (3, 10), (3, -1)])
def test_impossible_requests_name_the_limit(count, start):
    with pytest.raises(ConfigError, match="of 10 points"):
        farthest_first(torch.randn(10, 3), count, start)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity_are_refused(value):
    x = torch.randn(100, 4)
    x[40, 2] = value
    with pytest.raises(TrainingError, match="NaN"):
        farthest_first(x, 5)


def test_projection_keeps_distances():
    x = torch.randn(200, 1536, generator=torch.Generator().manual_seed(0))
    y = random_projection(x, 128, torch.Generator().manual_seed(1))
    assert y.shape == (200, 128)
    ratio = torch.pdist(y) / torch.pdist(x)
    assert abs(ratio.mean() - 1) < 0.02
    assert ratio.std() < 0.1


def test_projection_follows_its_generator():
    x = torch.randn(20, 300)
    state = torch.random.get_rng_state()
    first, same = (random_projection(x, 64, torch.Generator().manual_seed(5)) for _ in range(2))
    other = random_projection(x, 64, torch.Generator().manual_seed(6))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)
