"""adcore-runtime beside torch, in the same run: preprocessing, and one image from a new process."""

import subprocess
import sys
import time
from statistics import median

import numpy as np
import pytest
import torch
from adcore.preprocess import Preprocess
from adcore_runtime import preprocess


def milliseconds(function, image):
    """Median of 15 calls."""
    seconds = []
    function(image)
    for _ in range(15):
        start = time.perf_counter()
        function(image)
        seconds.append(time.perf_counter() - start)
    return 1000 * median(seconds)


@pytest.mark.parametrize(("height", "width"), [(512, 512), (1200, 1600), (3000, 4000)])
def test_preprocessing_takes_no_more_than_twice_torchs_time(benchmark, height, width):
    image = np.random.default_rng(0).random((3, height, width), np.float32)
    stored = Preprocess(size=(256, 256))
    ours = preprocess.Preprocess.from_dict(stored.to_dict())
    benchmark(ours, image)
    ratio = milliseconds(ours, image) / milliseconds(stored, torch.from_numpy(image))
    print(f"\n{height} x {width}: {ratio:.2f} of torch's time")
    assert ratio < 2


def test_the_runtime_starts_in_a_fifth_of_torchs_time(benchmark):
    def start(code):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - begin

    runtime = "import adcore_runtime.predictor, onnxruntime"
    benchmark(start, runtime)
    ratio = min(start(runtime) for _ in range(5)) / min(start("import torch, timm") for _ in range(5))
    print(f"\n{ratio:.2f} of the time in which torch and timm are imported")
    assert ratio < 0.2
