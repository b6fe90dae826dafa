"""A coreset of patches that do not fit into memory, beside the one of all patches."""

import logging

import pytest
import torch
from adcore.errors import ConfigError
from adcore.testing import tiny_batches
from adcore.training.plan import Plan
from adcore.training.trainer import Trainer
from adm_memory.patchcore import PatchCore
from adm_memory.streaming import StreamedPatches, covering, memory_limit, size_text
from hypothesis import given, settings
from hypothesis import strategies as st

ROW = 32  # bytes beside the features


def streamed(points, count, limit, batch=1000):
    stream = StreamedPatches(len(points), count, limit, points, lambda patches: patches)
    for part in points.split(batch):
        stream.add(part)
    return stream


def radius(points, bank):
    """How far a point is from the bank at most, by brute force."""
    return max(torch.cdist(part.double(), bank.double()).amin(1).max().item() for part in points.split(2000))


def limit_for(points, count, share):
    """Bytes for this share of the points, beside the coreset."""
    entry = 4 * points.shape[1]
    return int(len(points) * share * (entry + ROW)) + count * entry


@settings(max_examples=8, deadline=None)
@given(
    dims=st.integers(32, 64),
    decay=st.sampled_from([0.0, 0.5]),
    groups=st.integers(1, 20),
    ratio=st.sampled_from([0.01, 0.05]),
    seed=st.integers(0, 2**16),
)
def test_the_bank_covers_the_patches_nearly_as_well_as_the_exact_one(dims, decay, groups, ratio, seed):
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(groups, dims, generator=generator)
    noise = torch.randn(4000, dims, generator=generator) * torch.arange(1, dims + 1) ** -decay
    points = centers[torch.randint(groups, (4000,), generator=generator)] + noise
    count = int(ratio * len(points))
    exact = radius(points, points[covering(points, count)[0]])
    stream = streamed(points, count, limit_for(points, count, 0.5))
    picks, of_left = covering(stream.left(), count)
    ours = radius(points, stream.left()[picks])
    assert ours <= 1.15 * exact
    assert of_left * (1 - 1e-4) <= ours <= (of_left + stream.radius) * (1 + 1e-4)  # what the log says


def test_the_buffer_stays_within_the_limit_and_batches_do_not_matter():
    points = torch.randn(5000, 16, generator=torch.Generator().manual_seed(0))
    limit = limit_for(points, 100, 0.3)
    streams = [streamed(points, 100, limit, batch) for batch in (7, 1000, 5000)]
    left = streams[0].left()
    assert left.untyped_storage().nbytes() + len(left) * ROW + 100 * 16 * 4 <= limit
    assert all(torch.equal(stream.left(), left) for stream in streams[1:])
    assert torch.cdist(left, points).amin(1).max() < 1e-2  # patches, not means of them


@pytest.mark.parametrize("count", [1, 5, 100])
def test_the_covering_radius_is_that_of_brute_force(count):
    points = torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
    picks, reach = covering(points, count, 3)
    assert len(picks) == count
    assert reach == pytest.approx(radius(points, points[picks]), rel=1e-4)
    assert covering(points, 500)[1] == 0


def fitted(max_memory):
    model = PatchCore("resnet18", ("layer2", "layer3"), "random", coreset_ratio=0.25, max_memory=max_memory)
    Trainer(model, Plan(), tiny_batches(6, (64, 96), 2), 6).run()
    return model


def test_patchcore_reduces_patches_beyond_its_memory_and_says_so(caplog):
    exact = fitted("auto").memory_bank
    assert torch.equal(fitted("4GB").memory_bank, exact)  # it fits: bit for bit the same
    with caplog.at_level(logging.WARNING):
        bank = fitted("1MB").memory_bank
    assert "576 patches do not fit into 1MB" in caplog.text
    assert bank.shape == exact.shape
    images = torch.cat([batch.images for batch in tiny_batches(6, (64, 96), 2)])
    assert torch.cdist(bank, fitted("auto").embed(images)[0]).amin(1).max() < 1e-2


def test_a_memory_that_is_too_small_names_one_that_is_enough():
    with pytest.raises(ConfigError, match=r"a bank of 144 patches needs max_memory=(\S+) ") as raised:
        fitted("0.5MB")
    assert fitted(str(raised.value).split("max_memory=")[1].split()[0]).memory_bank.shape == (144, 384)


def test_patches_are_not_streamed_where_all_of_them_are_compared():
    with pytest.raises(ConfigError, match="leave max_memory out"):
        PatchCore("resnet18", weights="random", denoise="lof", max_memory="4GB")


def test_sizes():
    cpu = torch.device("cpu")
    assert memory_limit("4GB", cpu) == 4 * 10**9
    assert memory_limit("1.5MB", cpu) == 1_500_000
    assert memory_limit("auto", cpu) > 0
    assert memory_limit(size_text(1_234_567), cpu) >= 1_234_567
