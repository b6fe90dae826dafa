"""A training of several epochs on large PNG files that are read once, or in every epoch: `hatch run bench -k once -s`.

Wanted: 0.65. Two cores reach 0.83, since a thread decodes the next batch while the model works on this one.
"""

from __future__ import annotations

import time

import adcore
import numpy as np
import pytest
from adcore.files import sha256_file
from PIL import Image

IMAGES, SIDE, EPOCHS = 60, 1024, 10


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """PNG files that take as long to decode as photographs do."""
    root, generator = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for folder, count in (("train", IMAGES), ("test", 4)):
        (root / "part" / folder / "good").mkdir(parents=True)
        for number in range(count):
            base = np.linspace(0, 200, SIDE * SIDE * 3).reshape(SIDE, SIDE, 3) + generator.integers(
                0, 40, (SIDE, SIDE, 3)
            )
            Image.fromarray(base.astype(np.uint8)).save(root / "part" / folder / "good" / f"{number}.png")
    return root


def test_images_are_read_once(benchmark, data, tmp_path):
    seconds, digests = {}, set()

    def train(cache: str) -> None:
        settings = {"weights": "random", "image_size": 128, "num_epochs": EPOCHS, "device": "cpu", "cache": cache}
        began = time.perf_counter()
        run = adcore.train(f"mvtec:{data}", "part", "stfpm-efficientnet-lite0", out=tmp_path / cache, **settings)
        seconds[cache] = time.perf_counter() - began
        digests.add(sha256_file(run.artifact))

    train("off")
    benchmark.pedantic(train, args=("auto",), rounds=1)
    ratio = seconds["auto"] / seconds["off"]
    benchmark.extra_info.update(seconds, ratio=ratio)
    print(f"\n{seconds['off']:.1f} s read every time, {seconds['auto']:.1f} s read once: ratio {ratio:.2f}")
    assert len(digests) == 1
    assert ratio < 1
