"""adcore-runtime beside torch, in the same run: preprocessing, the start of a process, and one image in a loop."""

import subprocess
import sys
import time
from statistics import median

import adcore
import adcore_runtime
import numpy as np
import pytest
import torch
from adcore.artifact import Artifact
from adcore.export.graph import write_graph
from adcore.inference.predictor import Predictor
from adcore.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from adcore_runtime import preprocess
from adcore_runtime.onnx_file import with_record


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


def exported(artifact, path):
    """Write `artifact` as an ONNX file."""
    preprocessing = artifact.preprocess
    write_graph(artifact, path, torch.rand(2, 3, *preprocessing.output_size), None, None)
    record = {"format": 1, "preprocess": preprocessing.to_dict(), "calibration": {}, "camera": None}
    path.write_bytes(with_record(path.read_bytes(), record))
    return path


@pytest.mark.parametrize(
    ("name", "settings", "bar"),
    [
        ("stfpm-efficientnet-lite0", {"weights": "random"}, 1 / 1.3),
        ("efficientad-small", {"teacher": "random"}, 1 / 1.3),
    ],
)
def test_one_image_takes_less_time_than_with_torch(benchmark, tmp_path, name, settings, bar):
    pytest.importorskip("onnxscript", reason="pip install onnx onnxscript")
    model = adcore.create_model(name, **settings).eval()
    model.fitted = True
    stored = Preprocess(size=(256, 256), mean=IMAGENET_MEAN, std=IMAGENET_STD)
    artifact = Artifact(model, stored)
    path = exported(artifact, tmp_path / "model.onnx")
    image = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    with_torch, without = Predictor(artifact), adcore_runtime.load(path)
    expected = with_torch.predict(image).score
    assert without.predict(image).score == pytest.approx(expected, rel=1e-3)
    benchmark.pedantic(without.predict, (image,), rounds=5)
    ratio = milliseconds(without.predict, image) / milliseconds(with_torch.predict, image)
    print(f"\n{name}: {ratio:.2f} of torch's time")
    assert ratio < bar
