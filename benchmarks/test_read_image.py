"""Reading images, beside Pillow with torchvision's `to_tensor`, the usual way, on the same files in the same run."""

import time

import numpy as np
import pytest
from adcore.data.image_io import read_image
from PIL import Image
from torchvision.transforms.functional import to_tensor


def usual_way(path):
    with Image.open(path) as image:
        return to_tensor(image.convert("RGB"))


def best_of(n, function, paths):
    """Shortest of `n` rounds over all paths, in seconds of this process."""
    seconds = []
    for _ in range(n):
        start = time.process_time()
        for path in paths:
            function(path)
        seconds.append(time.process_time() - start)
    return min(seconds)


@pytest.mark.parametrize(
    ("shape", "suffix", "bar"), [((480, 640, 3), "jpg", 1.1), ((480, 640), "jpg", 0.8), ((480, 640), "png", 0.9)]
)
def test_reading_costs_no_more_than_the_usual_way(benchmark, tmp_path, shape, suffix, bar):
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (shape[0] // 8, shape[1] // 8, *shape[2:]), dtype=np.uint8)
    paths = [tmp_path / f"{i}.{suffix}" for i in range(5)]
    for path in paths:
        Image.fromarray(small).resize(shape[1::-1]).save(path)
    benchmark(lambda: [read_image(path) for path in paths])
    ratio = best_of(15, read_image, paths) / best_of(15, usual_way, paths)
    print(f"\n{shape} {suffix}: {ratio:.2f} of the usual way's time")
    assert ratio < bar
