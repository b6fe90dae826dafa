"""PatchCore's coreset within a limit of memory beside the one of all patches: `hatch run bench -k bounded -s`.

Patches like those of EfficientNet-Lite0 at 256 px: 1,024 of 152 numbers an image. Images repeat with small shifts.
"""

from __future__ import annotations

import time

import pytest
import torch
from adm_memory.streaming import StreamedPatches, covering

PER_IMAGE, DIMS, DIFFERENT = 1024, 152, 100


def patches_of(image: int) -> torch.Tensor:
    """Patches of the image of this number; after `DIFFERENT` images they come again, moved a little."""
    axes = torch.arange(1, DIMS + 1) ** -0.5
    first = torch.randn(PER_IMAGE, DIMS, generator=torch.Generator().manual_seed(image % DIFFERENT))
    return (first + 0.1 * torch.randn(PER_IMAGE, DIMS, generator=torch.Generator().manual_seed(10**6 + image))) * axes


def streamed(images: int, ratio: float, limit: int) -> tuple[torch.Tensor, float, int]:
    """The bank, seconds of selection without those of making the patches, and bytes of the buffer."""
    total, seconds = images * PER_IMAGE, 0.0
    count = int(total * ratio)
    stream = StreamedPatches(total, count, limit, patches_of(0), lambda patches: patches)
    for image in range(images):
        patches, began = patches_of(image), time.perf_counter()
        stream.add(patches)
        seconds += time.perf_counter() - began
    began = time.perf_counter()
    left = stream.left()
    bank = left[covering(left, count)[0]]
    return bank, seconds + time.perf_counter() - began, left.untyped_storage().nbytes() + bank.nbytes


def radius(images: int, bank: torch.Tensor) -> float:
    return max(torch.cdist(patches_of(image), bank).amin(1).max().item() for image in range(images))


@pytest.mark.parametrize("ratio", [0.01, 0.1])
def test_bounded_beside_exact(benchmark, ratio):
    images = 100
    points = torch.cat([patches_of(image) for image in range(images)])
    began = time.perf_counter()
    exact = points[covering(points, int(len(points) * ratio))[0]]
    seconds = time.perf_counter() - began
    limit = int(len(points) * DIMS * 4 * 0.5)
    bank, ours, taken = benchmark.pedantic(streamed, (images, ratio, limit), rounds=1)
    cover = radius(images, bank) / radius(images, exact)
    benchmark.extra_info.update(time=ours / seconds, cover=cover)
    print(
        f"\n{ratio:.0%} of {len(points)}, half the memory: covering radius {cover:.3f}, time {ours / seconds:.2f} of exact"
    )
    assert cover <= 1.15
    assert taken <= limit


def test_seconds_and_memory_by_number_of_images(benchmark):
    limit = 300 * 10**6
    streamed(50, 0.01, limit)
    runs = {images: streamed(images, 0.01, limit)[1:] for images in (200, 800)}
    benchmark.pedantic(lambda: None, rounds=1)
    growth = (runs[800][0] / runs[200][0]) / 4
    print(f"\n1 %, limit 300 MB: {runs} (seconds, bytes); {growth:.2f} times linear")
    assert all(taken <= limit for _, taken in runs.values())
