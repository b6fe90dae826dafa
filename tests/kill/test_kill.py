"""kill -9 at random moments: nothing half-written has a final name, and a resumed run ends bit for bit as an undisturbed one.

ADCORE_KILL_COUNT kills (6) are shared by six commands; ADCORE_KILL_SEED (0) chooses other moments. `hatch run kill` makes 100.
"""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import adcore_runtime
import pytest
from adcore import artifact, plugins
from adcore.bundle_manifest import verify_bundle
from adcore.testing.needs import skip_without_onnx
from adcore.testing.site import write_distribution
from adcore.testing.tiny import write_tiny_mvtec
from PIL import Image
from safetensors.torch import load_file

pytestmark = pytest.mark.kill
MODELS = '''
import time
import torch
from adcore.maps import upsample
from adcore.model import AnomalyModel, Prediction, Update

class Colour(AnomalyModel):
    """The distance to a colour that it learns, with noise from the generator; slow enough to be killed."""
    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.nn.Parameter(torch.rand(3))

    def distance(self, images):
        return (images - self.mean[:, None, None]).square().mean(1)

    def training_step(self, batch, step):
        time.sleep(0.03)
        yield Update(self.distance(batch.images + 0.01 * torch.randn_like(batch.images)).mean())

    def configure_optimizers(self, plan):
        return {"main": plan.optimization(self.parameters(), "adam", learning_rate=0.01)}

    def forward(self, images):
        anomaly_map = upsample(self.distance(images), images.shape[-2:])
        return Prediction(anomaly_map.flatten(1).amax(1), anomaly_map)
'''
PLUGIN = """
from adcore.cards import ModelCard
from adcore.hookspecs import hookimpl

@hookimpl
def adcore_register_models():
    facts = {"family": "toy", "title": "T", "paper": "P", "year": 2020, "summary": "S", "normalization": "none"}
    return [ModelCard(name="kill-toy", target="kill_models:Colour", epochs=4, batch_size=2, image_size=32, **facts)]
"""
SETTINGS = {"checkpoint_seconds": 0, "scheduler": {"type": "steplr", "step_size": 2, "gamma": 0.5}}
COMMAND = [sys.executable, "-m", "adcore"]
BUNDLE = """
import sys
from pathlib import Path
from adcore.bundle import make_bundle

def collect(order, wheels):  # in pip's place
    for name in "abc":
        (wheels / f"{name}-1.0-py3-none-any.whl").write_bytes(bytes(10**7))

make_bundle(["kill-toy"], sys.argv[1], weights=False, data=[sys.argv[2]], collect=collect)
"""


@pytest.fixture(scope="session", autouse=True)
def site(tmp_path_factory) -> Iterator[None]:
    """The toy's distribution, for this process and those that it starts."""
    site = tmp_path_factory.mktemp("site")
    write_distribution(site, "kill-toy", {"kill_models.py": MODELS, "kill_plugin.py": PLUGIN}, "kill_plugin")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        patch.setenv("PYTHONPATH", f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        patch.setenv("OMP_NUM_THREADS", "1")
        plugins.load_plugins.cache_clear()
        yield
    plugins.load_plugins.cache_clear()


@pytest.fixture
def moments(request: pytest.FixtureRequest) -> Iterator[float]:
    """When to kill: shares of the time that a command takes from its first file to its end."""
    chosen = random.Random(f"{request.node.name} {os.environ.get('ADCORE_KILL_SEED', 0)}")
    return (chosen.random() for _ in range(-(-int(os.environ.get("ADCORE_KILL_COUNT", 6)) // 6)))


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    return write_tiny_mvtec(tmp_path_factory.mktemp("data"), train=6)


def kill(command: list[object], folder: Path, seconds: float | None) -> float:
    """Run `command`, kill it `seconds` (None: never) after something is in the new `folder`; how long it ran from there."""
    folder.mkdir()
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not any(folder.iterdir()):
        time.sleep(0.005)
    began = time.monotonic()
    if seconds is None:
        err = process.stderr.read()
        assert process.wait() == 0, err
        return time.monotonic() - began
    time.sleep(seconds)
    process.kill()
    process.communicate()
    return time.monotonic() - began


def run(*command: object) -> None:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def check_whole(folder: Path, rows: int | None = None) -> None:
    """Whatever has a final name below `folder` is whole; `rows` are the lines of each predictions.csv."""
    for path in folder.rglob("*"):
        if not path.is_file() or any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        if path.name == "result.json":
            names = {"predictions.csv", "report.html", "thresholds.txt", "histogram.png"} | (
                {"model.safetensors"} if "plan" in path.read_text() else set()
            )
            assert names <= {other.name for other in path.parent.iterdir()}, path
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.name == "model.safetensors":
            artifact.load(path)  # compares the checksum
        elif path.suffix == ".safetensors":
            load_file(path)
        elif path.suffix == ".onnx":
            adcore_runtime.load(path, threads=1)
        elif path.suffix == ".png":
            with Image.open(path) as picture:
                picture.load()  # raises for a truncated one
        elif path.name == "report.html":
            assert path.read_text().rstrip().endswith("</html>"), path
        elif path.name == "predictions.csv":
            with open(path, newline="", encoding="utf-8") as file:
                lines = list(csv.DictReader(file))
            assert rows is None or len(lines) == rows, path
            assert not any(None in line.values() for line in lines), path


def same_model(first: Path, second: Path) -> bool:
    one, other = load_file(first), load_file(second)
    return one.keys() == other.keys() and all((one[key] == other[key]).all() for key in one)


def no_leftovers(folder: Path) -> bool:
    return not list(folder.rglob(".adcore-*"))


def training(data: Path, out: Path) -> list[object]:
    settings = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    return [*COMMAND, "train", "kill-toy", "--data", f"mvtec:{data}", *settings, "--out", out]


@pytest.fixture(scope="session")
def trained(data, tmp_path_factory) -> tuple[Path, float]:
    """An undisturbed training: its folder, and its seconds."""
    folder = tmp_path_factory.mktemp("trained") / "calm"
    seconds = kill(training(data, folder / "run"), folder, None)
    return folder / "run", seconds


def test_train(moments, trained, data, tmp_path) -> None:
    calm, seconds = trained
    for number, moment in enumerate(moments):
        folder = tmp_path / str(number)
        kill(training(data, folder / "run"), folder, moment * seconds)
        check_whole(folder)
        run(*training(data, folder / "run"), "--resume")
        check_whole(folder)
        assert same_model(calm / "model.safetensors", folder / "run" / "model.safetensors"), moment
        assert (folder / "run" / "predictions.csv").read_bytes() == (calm / "predictions.csv").read_bytes(), moment
        assert no_leftovers(folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["evaluate", "predict"])
def test_evaluate_and_predict(name, moments, trained, data, tmp_path) -> None:
    what = ("--data", f"mvtec:{data}") if name == "evaluate" else (data,)
    command = [*COMMAND, name, trained[0], *what, "--out"]
    seconds = kill([*command, tmp_path / "calm" / "run"], tmp_path / "calm", None)
    expected = (tmp_path / "calm" / "run" / "predictions.csv").read_bytes()
    for number, moment in enumerate(moments):
        folder = tmp_path / str(number)
        kill([*command, folder / "run"], folder, moment * seconds)
        check_whole(folder, rows=len(expected.splitlines()) - 1)
        run(*command, folder / "run", "--overwrite")
        assert (folder / "run" / "predictions.csv").read_bytes() == expected
    check_whole(trained[0])


@pytest.mark.slow
def test_run(moments, data, tmp_path) -> None:
    base = {
        **SETTINGS,
        "dataset": "mvtec",
        "dataset_root": str(data),
        "source_domain": "part",
        "model_type": "kill-toy",
    }
    (tmp_path / "conditions.json").write_text(json.dumps({"base": base, "one": {}, "two": {"seed": 7}}))
    command = [*COMMAND, "run", tmp_path / "conditions.json", "--gpus", "none", "--out"]
    seconds = kill([*command, tmp_path / "calm"], tmp_path / "calm", None)
    models = {path.parent.name[:3]: path for path in (tmp_path / "calm").rglob("model.safetensors")}
    assert models.keys() == {"one", "two"}
    for number, moment in enumerate(moments):
        folder = tmp_path / str(number)
        kill([*command, folder], folder, moment * seconds)
        check_whole(folder)
        sessions = [path.parent for path in folder.glob("*/session.json")]
        if not sessions:  # killed before there was one
            continue
        run(*COMMAND, "run", "--resume", sessions[0])
        check_whole(folder)
        for name, calm in models.items():
            (path,) = sessions[0].glob(f"{name}*/model.safetensors")
            assert same_model(path, calm), (moment, name)
        assert no_leftovers(folder)


@pytest.mark.slow
def test_bundle(moments, data, tmp_path) -> None:
    def command(folder: Path) -> list[object]:
        return [sys.executable, "-c", BUNDLE, folder / "bundle", data]

    seconds = kill(command(tmp_path / "calm"), tmp_path / "calm", None)
    for number, moment in enumerate(moments):
        folder = tmp_path / str(number)
        kill(command(folder), folder, moment * seconds)
        if (folder / "bundle").exists():
            assert verify_bundle(folder / "bundle") == []
        else:
            run(*command(folder))
        shutil.rmtree(folder)


@pytest.mark.slow
def test_export(moments, trained, tmp_path) -> None:
    skip_without_onnx()
    command = [*COMMAND, "export", trained[0], "--to", "onnx", "--out"]
    seconds = kill([*command, tmp_path / "calm" / "out"], tmp_path / "calm", None)
    expected = (tmp_path / "calm" / "out" / "model.onnx").read_bytes()
    for number, moment in enumerate(moments):
        folder = tmp_path / str(number)
        kill([*command, folder / "out"], folder, moment * seconds)
        check_whole(folder)
        run(*command, folder / "out", "--overwrite")
        assert (folder / "out" / "model.onnx").read_bytes() == expected
        assert no_leftovers(folder)
