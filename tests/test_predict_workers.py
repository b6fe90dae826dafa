"""Scoring a folder with several processes: the same files as with one, errors in one line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from adcore import artifact as artifacts
from adcore.artifact import Artifact
from adcore.data.samples import Sample
from adcore.errors import ConfigError
from adcore.inference.batch import predict_files
from adcore.inference.predictor import Predictor, load
from adcore.inference.workers import CHUNK, CHUNK_BYTES, Workers, chunks_of, result_bytes
from adcore.preprocess import Preprocess
from adcore.registry import create_model
from adcore_runtime.rows import RowOptions
from PIL import Image

COUNT = CHUNK + 5
WAITS = f"{CHUNK + 3:03}.png"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """An autoencoder as it begins: it needs no weights, and has a score and a map."""
    autoencoder = create_model("autoencoder")
    autoencoder.fitted = True
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    artifacts.save(path, Artifact(autoencoder, Preprocess((64, 64))))
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder, generator = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(COUNT):
        Image.fromarray(generator.integers(0, 255, (40, 50, 3), np.uint8)).save(folder / f"{number:03}.png")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_two_processes_go_on_after_a_kill_and_end_with_the_files_of_one(model, images, tmp_path) -> None:
    begun = predict_files(load(model), images, tmp_path / "one")
    for _ in range(2):
        next(begun)
    (staging,) = (tmp_path / "one").glob(".adcore-*.predict")
    left = tmp_path / "left"
    shutil.copytree(staging, left / ".adcore-2147483646-0.tmp.predict")  # no process has this number
    (left / ".adcore-2147483646-0.tmp.predict" / "overlays" / "001.png.png").unlink()
    rest = list(begun)
    again = list(predict_files(load(model), images, left, resume=True, workers=Workers(2, model)))
    assert [Path(row["path"]).name for row in again[1:]] == [Path(row["path"]).name for row in rest]  # in order
    one, two = contents(tmp_path / "one"), contents(left)
    rows = [part.pop("predictions.csv").splitlines() for part in (one, two)]
    assert one == two
    assert sorted(rows[0]) == sorted(rows[1])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="holds the command at an image that never comes")
@pytest.mark.parametrize("options", [(), pytest.param(("--workers", "2", "--full-size"), marks=pytest.mark.slow)])
def test_a_command_killed_in_the_middle_ends_with_the_files_of_one_process(options, model, images, tmp_path, run_cli):
    full_size = RowOptions(full_size="--full-size" in options)
    list(predict_files(load(model), images, tmp_path / "calm", options=full_size))
    source = Path(shutil.copytree(images, tmp_path / "in"))
    (source / WAITS).unlink()
    os.mkfifo(source / WAITS)
    arguments = ["predict", model, source, "--device", "cpu", "--out", tmp_path / "out", *options]
    command = [sys.executable, "-m", "adcore", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for _ in range(CHUNK):
            assert process.stdout.readline()
        process.kill()
    assert all(path.name[0] == "." for path in (tmp_path / "out").iterdir())  # what it has written is hidden
    (source / WAITS).unlink()
    shutil.copy(images / WAITS, source)
    code, out, _ = run_cli(*arguments, "--resume")
    assert code == 0
    assert (
        2 <= out.count(".png") <= COUNT - CHUNK
    )  # the one that it waited for and the last; those that it had not printed
    calm, resumed = contents(tmp_path / "calm"), contents(tmp_path / "out")
    calm["predictions.csv"] = calm["predictions.csv"].replace(bytes(images), bytes(source))
    assert calm == resumed


@pytest.mark.slow
def test_an_unreadable_image_is_one_line_or_left_out(model, images, tmp_path, run_cli) -> None:
    (tmp_path / "in").mkdir()
    shutil.copy(images / "000.png", tmp_path / "in" / "good.png")
    (tmp_path / "in" / "bad.png").write_bytes(b"broken")
    options = ("--workers", "2", "--device", "cpu", "--out", tmp_path / "out")
    code, _, err = run_cli("predict", model, tmp_path / "in", *options)
    assert (code, err.count("\n")) == (2, 1)
    assert "bad.png" in err
    assert not (tmp_path / "out").exists()
    code, _, err = run_cli("predict", model, tmp_path / "in", *options, "--skip-bad")
    assert code == 0
    assert set(contents(tmp_path / "out")) == {"predictions.csv", "maps/good.png.tiff", "overlays/good.png.png"}


def test_images_that_score_one_another_are_not_shared_out(images) -> None:
    musc = create_model("musc", backbone="resnet18", layers=["layer2", "layer3"], weights="random")
    with pytest.raises(ConfigError, match="leave --workers out"):
        list(predict_files(Predictor(Artifact(musc, Preprocess((64, 64)))), images, workers=Workers(2, Path("musc"))))


def test_workers_are_refused_on_a_gpu(model, images) -> None:
    predictor = load(model)
    predictor.device = torch.device("cuda")
    with pytest.raises(ConfigError, match="--device cpu"):
        list(predict_files(predictor, images, workers=Workers(2, model)))


def test_a_process_gets_no_more_images_at_a_time_than_their_maps_are_small() -> None:
    samples = [Sample(Path(f"{number}.png"), "test", 0, "") for number in range(CHUNK + 4)]
    small = list(chunks_of(samples, lambda sample: 1000))
    assert [len(chunk) for chunk in small] == [CHUNK, 4]
    large = {3: CHUNK_BYTES // 2, 4: CHUNK_BYTES, 5: 2 * CHUNK_BYTES, 6: CHUNK_BYTES // 2, 7: CHUNK_BYTES // 2}
    chunks = list(chunks_of(samples, lambda sample: large.get(int(sample.image_path.stem), 0)))
    assert [len(chunk) for chunk in chunks[:4]] == [4, 1, 1, CHUNK - 2]
    assert [one for chunk in chunks for one in chunk] == samples


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
def test_results_are_weighed_before_the_image_is_read(name, tmp_path) -> None:
    Image.fromarray(np.zeros((40, 50), np.uint8)).save(tmp_path / name)
    sample, tiles = Sample(tmp_path / name, "test", 0, ""), Preprocess(None, tile=(32, 32))
    found = result_bytes(sample, tiles, photo=True)
    assert found == 5 * 40 * 50 if name == "a.png" else found >= 5 * 40 * 50  # a TIFF's header is not read
    if name == "a.png":
        assert result_bytes(sample, Preprocess((64, 64)), photo=False) == 4 * 64 * 64
    assert result_bytes(Sample(tmp_path / "missing.png", "test", 0, ""), tiles, photo=True) == 0
