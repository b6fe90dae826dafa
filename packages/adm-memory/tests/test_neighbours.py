"""Nearest neighbours against brute force in float64, by differences."""

import pytest
import torch
from adcore.errors import ConfigError, DataError
from adm_memory import bounds as kinds
from adm_memory import neighbours
from adm_memory.bounds import FullBound, HalfBound, ShortBound
from adm_memory.neighbours import NearestNeighbours, StreamedNeighbours, search_structure
from hypothesis import given, settings
from hypothesis import strategies as st


def brute_force(bank, queries, k):
    distances = torch.cdist(queries.double(), bank.double(), compute_mode="donot_use_mm_for_euclid_dist")
    return distances.sort(dim=1).values[:, :k]


def assert_exact(bank, queries, k=1, index=None, tolerance=1e-4):
    distances, indices = (index or NearestNeighbours(bank)).query(queries, k)
    expected = brute_force(bank, queries, k)
    assert distances.shape == indices.shape == expected.shape
    assert ((distances - expected).abs() <= tolerance * expected).all()
    between = (queries[:, None].double() - bank[indices].double()).norm(dim=2)
    assert ((between - expected).abs() <= tolerance * expected).all()  # the index belongs to the distance
    assert all(len(set(row)) == k for row in indices.tolist())


def correlated(n, dims, decay=2.0, seed=0, offset=3.0):
    """Features like those of a network: most variance in few directions, away from the origin."""
    g = torch.Generator().manual_seed(seed)
    mixing = torch.linalg.qr(torch.randn(dims, dims, generator=torch.Generator().manual_seed(99))).Q
    return (torch.randn(n, dims, generator=g) * torch.arange(1, dims + 1) ** -decay) @ mixing + offset


@given(
    size=st.integers(1, 700),
    dims=st.integers(1, 40),
    rows=st.integers(1, 300),
    k=st.integers(1, 9),
    repeats=st.integers(0, 5),
    dtype=st.sampled_from([torch.float32, torch.float16]),
)
@settings(max_examples=30, deadline=None)
def test_a_search_in_blocks_gives_the_bits_of_one_in_memory(size, dims, rows, k, repeats, dtype):
    bank = torch.cat([correlated(size, dims, 1.0)] + [correlated(size, dims, 1.0)[:3]] * repeats).to(dtype)
    queries, k = torch.cat([correlated(20, dims, 1.0, seed=1), bank[:4].float()]), min(k, len(bank))
    expected = NearestNeighbours(bank).query(queries, k)
    for found, wanted in zip(StreamedNeighbours(bank, rows).query(queries, k), expected, strict=True):
        assert torch.equal(found, wanted)


def test_a_bank_that_does_not_fit_into_memory_is_searched_in_blocks(monkeypatch):
    bank = correlated(50, 8)
    assert isinstance(search_structure(bank), NearestNeighbours)
    monkeypatch.setattr(neighbours, "available_memory", lambda: 2 * bank.nbytes - 2)
    index = search_structure(bank)
    assert isinstance(index, StreamedNeighbours)
    assert_exact(bank, correlated(9, 8, seed=1), 3, index)
    with pytest.raises(ConfigError, match="ask for 1 to 50"):
        index.query(bank, 51)


def test_points_on_a_line():
    index = NearestNeighbours(torch.tensor([[0.0], [1.0], [10.0], [4.0]]))
    distances, indices = index.query(torch.tensor([[3.0], [100.0], [0.25]]), 2)
    assert indices.tolist() == [[3, 1], [2, 3], [0, 1]]
    assert distances.tolist() == [[1, 2], [90, 96], [0.25, 0.75]]


@pytest.mark.parametrize("k", [1, 2, 9, 600])
@pytest.mark.parametrize(("size", "dims"), [(3000, 200), (1537, 300)])
def test_correlated_features_take_the_bound(size, dims, k):
    bank, queries = correlated(size, dims), correlated(150, dims, seed=1)
    index = NearestNeighbours(bank)
    assert isinstance(index.bound, ShortBound)
    assert_exact(bank, queries, k, index)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize(("has_bfloat16", "bound"), [(False, FullBound), (True, HalfBound)])
def test_features_without_structure_take_all_dimensions(k, has_bfloat16, bound, monkeypatch):
    monkeypatch.setattr(kinds, "has_mixed_precision", lambda device: has_bfloat16)
    bank, queries = correlated(3000, 200, decay=0), correlated(100, 200, decay=0, seed=1)
    index = NearestNeighbours(bank)
    assert type(index.bound) is bound
    assert_exact(bank, queries, k, index)


@given(
    seed=st.integers(0, 99), decay=st.floats(0, 3), offset=st.floats(0, 1e3), scale=st.sampled_from([1e-6, 1.0, 1e6])
)
@settings(max_examples=30, deadline=None)
@pytest.mark.parametrize("kind", [FullBound, ShortBound, HalfBound])
def test_no_distance_is_below_its_bound(kind, seed, decay, offset, scale):
    bank, queries = (scale * correlated(n, 64, decay, s, offset) for n, s in ((300, seed), (40, seed + 1)))
    queries[:9] = bank[:9]
    center = bank.mean(0)
    (x, norms), (q, q_norms) = ((v - center, (v - center).square().sum(1)) for v in (bank, queries))
    bound = kind(x, norms, 128, *([torch.linalg.qr(x.T @ x).Q[:, :30]] if kind is ShortBound else []))
    bounds = bound(q, q_norms, bound.buffers(q, len(q)))
    assert (bounds[:, 300:] == torch.inf).all()  # what fills the groups up is never near
    q, x = q.double(), x.double()
    true = (torch.cdist(q, x).square() - q.square().sum(1, keepdim=True)) / 2
    slack = 1e-5 * q_norms.double()[:, None]  # the search allows for it
    assert (bounds[:, :300] <= true + slack).all()


def test_queries_that_bfloat16_cannot_tell_apart():
    """Two crowds of near entries, far apart: the bound in bfloat16 rules nothing of a crowd out."""
    side = torch.where(torch.arange(3000) % 2 == 0, -10.0, 10.0)[:, None]
    bank, queries = (side[:n] + correlated(n, 100, 0, seed, 0) / 10 for n, seed in ((3000, 0), (50, 1)))
    index = NearestNeighbours(bank)
    index.bound = HalfBound(*index._centered(), index.groups)
    assert_exact(bank, queries, 3, index)


@pytest.mark.parametrize("k", [1, 9])
def test_queries_the_bound_does_not_suit(k):
    """Far from the bank, along directions its axes leave out: all bounds are equally useless."""
    bank = correlated(4000, 128)
    queries = torch.cat([correlated(20, 128, seed=1), 30 * torch.randn(20, 128), torch.full((2, 128), 3.0)])
    index = NearestNeighbours(bank)
    assert isinstance(index.bound, ShortBound)
    assert_exact(bank, queries, k, index)


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_queries_that_are_in_the_bank_or_almost(offset):
    bank = correlated(2500, 160, offset=offset)
    index = NearestNeighbours(bank)
    distances, indices = index.query(bank[::7])
    assert (distances == 0).all()
    assert torch.equal(indices[:, 0], torch.arange(0, 2500, 7))
    assert_exact(bank, bank[::7] + 1e-3 * torch.randn(358, 160), index=index)
    assert_exact(bank, bank[::7] * (1 + 1e-6), index=index)


def test_the_first_of_equal_entries_comes_first():
    bank = correlated(800, 64)
    twice = torch.cat([bank, bank])
    queries = correlated(60, 64, seed=1)
    (_, once), (distances, indices) = (
        NearestNeighbours(bank).query(queries, 2),
        NearestNeighbours(twice).query(queries, 4),
    )
    assert torch.equal(indices[:, ::2], once)
    assert torch.equal(indices[:, 1::2], once + 800)
    assert torch.equal(distances[:, ::2], distances[:, 1::2])


@pytest.mark.parametrize("size", [1, 40, 3000])
def test_a_bank_of_one_repeated_entry(size):
    bank = torch.full((size, 100), 0.3)
    queries = torch.cat([bank[:1], torch.rand(20, 100)])
    assert_exact(bank, queries, min(size, 3))
    assert NearestNeighbours(bank).query(bank[:1])[0].item() == 0


def test_more_near_duplicates_than_a_float32_product_can_tell_apart():
    g = torch.Generator().manual_seed(5)
    side = torch.where(torch.arange(2000) % 2 == 0, -10.0, 10.0)[:, None]
    bank = side + 1e-3 * torch.randn(2000, 100, generator=g)
    assert_exact(bank, side[:40] + 1e-3 * torch.randn(40, 100, generator=g), k=2)


@pytest.mark.parametrize("bounds", [1, 2**13, 2**18])
def test_chunks_do_not_change_a_bit(bounds, monkeypatch):
    bank, queries = correlated(3000, 150), correlated(90, 150, seed=1)
    expected = NearestNeighbours(bank).query(queries, 3)
    monkeypatch.setattr(neighbours, "CPU_BOUNDS", bounds)
    monkeypatch.setattr(neighbours, "GATHERED", bounds)
    distances, indices = NearestNeighbours(bank).query(queries, 3)
    assert torch.equal(distances, expected[0])
    assert torch.equal(indices, expected[1])


@pytest.mark.parametrize("decay", [0.0, 2.0])
def test_a_result_does_not_depend_on_the_other_queries(decay):
    bank, queries = correlated(2000, 150, decay), correlated(64, 150, decay, seed=1)
    index = NearestNeighbours(bank)
    together = index.query(queries)
    alone = [index.query(q[None]) for q in queries]
    assert torch.equal(together[0], torch.cat([d for d, _ in alone]))
    assert torch.equal(together[1], torch.cat([i for _, i in alone]))
    assert torch.equal(index.query(queries.flip(0))[0], together[0].flip(0))


def test_two_of_one_bank_are_equal_and_leave_the_random_state_alone():
    bank, queries = correlated(2000, 150), correlated(64, 150, seed=1)
    state = torch.random.get_rng_state()
    first, second = NearestNeighbours(bank), NearestNeighbours(bank.clone())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first.bound.axes, second.bound.axes)
    assert torch.equal(first.query(queries)[0], second.query(queries)[0])


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 700),
    dims=st.integers(1, 70),
    decay=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
    seed=st.integers(0, 2**16),
    data=st.data(),
)
def test_any_bank(size, dims, decay, scale, seed, data):
    k = data.draw(st.integers(1, min(size, 12)))
    bank, queries = (scale * correlated(n, dims, decay, seed + i) for i, n in enumerate((size, 20)))
    assert_exact(bank, queries, k)


@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 90), dims=st.integers(1, 4), levels=st.integers(1, 4), seed=st.integers(0, 2**16))
def test_any_bank_with_ties_and_duplicates(size, dims, levels, seed):
    g = torch.Generator().manual_seed(seed)
    bank, queries = (torch.randint(levels, (n, dims), generator=g).float() for n in (size, 15))
    _, indices = NearestNeighbours(bank).query(queries)
    squared = (queries[:, None] - bank).square().sum(2)  # small whole numbers: exact
    first = (squared == squared.amin(1, keepdim=True)).int().argmax(1)
    assert torch.equal(indices[:, 0], first)
    assert_exact(bank, queries, min(size, 3))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_a_permuted_bank_gives_the_same_distances(seed):
    order = torch.randperm(900, generator=torch.Generator().manual_seed(seed))
    bank, queries = correlated(900, 64), correlated(30, 64, seed=1)
    distances, indices = NearestNeighbours(bank).query(queries, 5)
    permuted, where = NearestNeighbours(bank[order]).query(queries, 5)
    assert torch.equal(permuted, distances)
    untied = (distances.diff(dim=1) > 0).all(
        1
    )  # of equally near entries the first comes first, and which that is changed
    assert untied.any()
    assert torch.equal(order[where][untied, :4], indices[untied, :4])


def test_no_queries():
    distances, indices = NearestNeighbours(correlated(100, 40)).query(torch.empty(0, 40), 2)
    assert distances.shape == indices.shape == (0, 2)


@pytest.mark.parametrize("k", [0, 6])
def test_more_neighbours_than_entries(k):
    with pytest.raises(ConfigError, match="bank of 5"):
        NearestNeighbours(torch.randn(5, 3)).query(torch.randn(2, 3), k)


def test_wrong_shapes():
    with pytest.raises(ConfigError, match=r"\(Q, 3\)"):
        NearestNeighbours(torch.randn(5, 3)).query(torch.randn(2, 4))
    with pytest.raises(ConfigError, match="at least one entry"):
        NearestNeighbours(torch.empty(0, 3))


def test_nan_in_a_query():
    queries = torch.randn(6, 30)
    queries[3, 3] = torch.nan
    with pytest.raises(DataError, match="NaN"):
        NearestNeighbours(torch.randn(50, 30)).query(queries)
