"""The memory family's two searches beside the plain way, each pair in one run: `hatch run bench benchmarks/test_memory.py -s`.

Both sides run in turns and the shortest time of each counts, so that what else the machine does touches both alike.
"""

import time

import pytest
import torch
from adm_memory.coreset import farthest_first
from adm_memory.neighbours import NearestNeighbours
from adm_memory.patchcore import PatchCore


def correlated(count, dims, decay=1.0, seed=0):
    """Features like those of a network: standard deviation 1/i^decay along the i-th of random axes, far from the origin."""
    axes = torch.linalg.qr(torch.randn(dims, dims, generator=torch.Generator().manual_seed(9))).Q
    values = torch.randn(count, dims, generator=torch.Generator().manual_seed(seed))
    return (values * torch.arange(1, dims + 1) ** -decay) @ axes + 0.5


def in_turns(rounds, **functions):
    """Shortest time in seconds of each function by name, and their last results."""
    seconds, results = dict.fromkeys(functions, float("inf")), {}
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            results[name] = function()
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds, results


def report(benchmark, title, seconds, **more):
    """Print the ratio of `plain` to `ours`, keep it with the benchmark's own figures, and return it."""
    ratio = seconds["plain"] / seconds["ours"]
    benchmark.extra_info.update(title=title, times_faster=round(ratio, 2), **more)
    times = f"plain {seconds['plain'] * 1e3:.1f} ms, ours {seconds['ours'] * 1e3:.1f} ms"
    print(f"\n{title}: {times}, {ratio:.1f} times faster {more or ''}")
    return ratio


def plain_greedy(features, count):
    """Farthest-first with one matrix-vector product a pick."""
    norms = features.square().sum(1)
    nearest, picks, pick = torch.full_like(norms, torch.inf), torch.empty(count, dtype=torch.int64), 0
    for i in range(count):
        picks[i] = pick
        distance = torch.addmv(norms, features, features[pick], alpha=-2).add_(norms[pick])
        torch.minimum(nearest, distance, out=nearest)
        nearest[pick] = -torch.inf
        pick = nearest.argmax().item()
    return picks


def distances_to_earlier(features, picks):
    """Distance of each pick to the nearest before it."""
    points = features[picks].double()
    between = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    return between.masked_fill(torch.ones_like(between).triu().bool(), torch.inf).amin(1)[1:]


@pytest.mark.parametrize(
    ("count", "size", "dims", "decay", "bar"),
    [
        (2000, 50_000, 384, 0.0, 12),
        (2000, 50_000, 384, 0.5, 12),
        (2000, 20_000, 150, 0.0, 5),
        (2000, 20_000, 150, 0.5, 5),
    ],
)
def test_coreset(benchmark, count, size, dims, decay, bar):
    features = correlated(size, dims, decay)
    functions = {"plain": lambda: plain_greedy(features, count), "ours": lambda: farthest_first(features, count)}
    seconds, results = benchmark.pedantic(in_turns, (3,), functions, rounds=1)
    plain, ours = results["plain"], results["ours"]
    exact = plain_greedy(features.double(), count)
    same = {"plain_as_exact": int((plain == exact).sum()), "ours_as_exact": int((ours == exact).sum())}
    title = f"coreset of {count} from {size} x {dims}, decay {decay}"
    ratio = report(benchmark, title, seconds, same_picks=len({*plain.tolist()} & {*ours.tolist()}), **same)
    # Points equally far but for rounding may come in another order: never more often than with plain float32.
    torch.testing.assert_close(
        distances_to_earlier(features, ours), distances_to_earlier(features, plain), rtol=1e-5, atol=0
    )
    assert same["ours_as_exact"] >= same["plain_as_exact"]
    assert {*ours.tolist()} == {*plain.tolist()} == {*exact.tolist()}
    assert ratio >= bar


def brute_force(bank, norms, queries, rows=98):
    """Nearest entry by the full product, in chunks that share one buffer."""
    products, distances = torch.empty(rows, len(bank)), []
    for part in queries.split(rows):
        out = torch.addmm(norms, part, bank.t(), alpha=-2, out=products[: len(part)])
        distances.append((out.min(1)[0] + part.square().sum(1)).clamp_(min=0).sqrt_())
    return torch.cat(distances)


@pytest.mark.parametrize(
    ("size", "dims", "decay", "bar"),
    [
        (15_000, 1536, 1.0, 2.5),
        (15_000, 384, 1.0, 1),
        (15_000, 384, 0.0, 1),
        (20_000, 384, 0.5, 1),
        (15_000, 152, 0.5, 1),
    ],
)
def test_nearest_neighbours(benchmark, size, dims, decay, bar):
    bank, queries = correlated(size, dims, decay), correlated(784, dims, decay, seed=1)
    exact = torch.cdist(queries.double(), bank.double()).amin(1)
    norms, index = bank.square().sum(1), NearestNeighbours(bank)
    functions = {"plain": lambda: brute_force(bank, norms, queries), "ours": lambda: index.query(queries)[0][:, 0]}
    seconds, results = benchmark.pedantic(in_turns, (15,), functions, rounds=1)
    bound = type(index.bound).__name__
    ratio = report(benchmark, f"784 nearest of {size} x {dims}, decay {decay}", seconds, bound=bound)
    torch.testing.assert_close(results["ours"].double(), exact, rtol=1e-4, atol=0)
    assert ratio >= bar


@pytest.mark.parametrize("images", [1, 8])
def test_patchcore_predict_beside_its_backbone(benchmark, images):
    """Random weights, a bank of 20,000 patches of noise images: what scoring adds to the bare forward pass."""
    torch.manual_seed(0)
    model = PatchCore("resnet18", ("layer2", "layer3"), "random").eval()
    with torch.inference_mode():
        noise = torch.rand(21, 3, 32, 32).repeat(1, 1, 1, 1)
        pictures = torch.nn.functional.interpolate(noise, (256, 256), mode="bicubic")
        patches = torch.cat([model.embed(picture[None])[0] for picture in pictures[:20]])
        model.memory_bank, model.fitted = patches[:20_000].clone(), True
        batch = torch.nn.functional.interpolate(torch.rand(images, 3, 32, 32), (256, 256), mode="bicubic")
        model(batch)
        functions = {"plain": lambda: model.extractor(batch), "ours": lambda: model(batch)}
        seconds, _ = benchmark.pedantic(in_turns, (15,), functions, rounds=1)
    ratio = seconds["ours"] / seconds["plain"]
    benchmark.extra_info.update(title=f"PatchCore predict of {images}", times_backbone=round(ratio, 2))
    times = f"backbone {seconds['plain'] * 1e3:.1f} ms, predict {seconds['ours'] * 1e3:.1f} ms"
    print(f"\nPatchCore predict of {images} with 20,000 x 384: {times}, {ratio:.2f} times the backbone")
    assert ratio < 4
