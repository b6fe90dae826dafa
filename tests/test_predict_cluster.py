"""Scoring on a Ray cluster of two nodes, which Ray starts on this machine: the rows of one process, bit for bit."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adcore import artifact as artifacts
from adcore.artifact import Artifact
from adcore.errors import ConfigError, DataError
from adcore.inference.batch import predict_files
from adcore.inference.cluster import BATCH, Cluster, listed_images
from adcore.inference.predictor import Predictor, load
from adcore.preprocess import Preprocess
from adcore.registry import create_model
from PIL import Image

COUNT = 3 * BATCH + 5
CALIBRATION = {"threshold": {"value": 0.5, "method": "youden"}, "score_range": [0.0, 1.0]}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """An autoencoder as it begins."""
    autoencoder = create_model("autoencoder")
    autoencoder.fitted = True
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    artifacts.save(path, Artifact(autoencoder, Preprocess((32, 32)), CALIBRATION))
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder, generator = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(COUNT):
        path = folder / f"{number % 2}" / f"{number:03}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (40, 50, 3), np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes with a processor each."""
    pytest.importorskip("ray", reason="pip install adcore[ray]")
    pytest.importorskip("pyarrow", reason="pip install adcore[ray]")
    from ray.cluster_utils import Cluster as Nodes

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("OMP_NUM_THREADS", "1")
        nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        nodes.add_node(num_cpus=1)
        yield nodes
        nodes.shutdown()


def table(folder: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as parquet

    return parquet.read_table(folder / "predictions.parquet").to_pylist()


@pytest.mark.slow
def test_two_nodes_give_the_rows_of_one_process(model, images, cluster, tmp_path, run_cli) -> None:
    """A minute: `hatch run test -m slow tests/test_predict_cluster.py`."""
    expected = list(predict_files(load(model, "cpu"), images))
    engine = ("--executor", "ray", "--executor-option", f"address={cluster.address}", "--device", "cpu")
    code, out, err = run_cli("predict", model, images, *engine, "--out", tmp_path / "folder", "--json")
    assert code == 0, err
    assert table(tmp_path / "folder") == expected
    assert json.loads(out)["predictions"] == expected
    assert [path.name for path in (tmp_path / "folder").iterdir() if path.name[0] != "."] == ["predictions.parquet"]

    bad = images.parent / f"{images.name}-bad.png"  # a list in an order of its own, with an image that cannot be read
    bad.write_bytes(b"broken")
    chosen = [expected[number]["path"] for number in (7, 2, 30)]
    with open(tmp_path / "list.csv", "w", newline="") as file:
        csv.writer(file).writerows([["path"], *([path] for path in (*chosen, str(bad)))])
    code, _, err = run_cli("predict", model, tmp_path / "list.csv", *engine, "--out", tmp_path / "listed")
    assert (code, err.count("\n")) == (2, 1)
    assert bad.name in err
    assert not (tmp_path / "listed" / "predictions.parquet").exists()
    code, _, err = run_cli("predict", model, tmp_path / "list.csv", *engine, "--out", tmp_path / "listed", "--skip-bad")
    assert code == 0
    assert bad.name in err
    assert table(tmp_path / "listed") == [expected[number] for number in (7, 2, 30)]


def test_what_is_scored_comes_from_a_folder_a_glob_or_a_list(images, tmp_path) -> None:
    below = sorted(images.rglob("*.png"))
    assert listed_images(images) == below
    assert listed_images(images / "1" / "*.png") == [path for path in below if path.parent.name == "1"]
    assert listed_images(images / "**" / "00?.png") == [path for path in below if path.stem.startswith("00")]
    (images / "list.csv").write_text("label,path\n1,1/003.png\n0,0/000.png\n")
    assert listed_images(images / "list.csv") == [images / "1" / "003.png", images / "0" / "000.png"]
    (images / "list.csv").unlink()
    (tmp_path / "list.csv").write_text("file\n1/003.png\n")
    for wrong, words in ((tmp_path / "list.csv", "column 'path'"), (tmp_path / "*.png", "names no image")):
        with pytest.raises(DataError, match=words):
            listed_images(wrong)


def test_a_parquet_list_names_its_images(images, tmp_path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pip install adcore[ray]")
    pyarrow = pytest.importorskip("pyarrow")
    below = sorted(images.rglob("*.png"))[5:1:-1]
    parquet.write_table(pyarrow.table({"path": list(map(str, below))}), tmp_path / "list.parquet")
    assert listed_images(tmp_path / "list.parquet") == below
    parquet.write_table(pyarrow.table({"name": ["a.png"]}), tmp_path / "list.parquet")
    with pytest.raises(DataError, match="column 'path'"):
        listed_images(tmp_path / "list.parquet")


def test_options_that_need_files_of_images_are_refused(model, images, tmp_path, run_cli) -> None:
    engine = ("--executor", "ray", "--out", tmp_path / "out")
    for wrong in (["--regions"], ["--full-size"], ["--resume"], ["--min-area", "3"]):
        code, _, err = run_cli("predict", model, images, *engine, *wrong)
        assert code == 2
        assert "writes a table" in err
    musc = create_model("musc", backbone="resnet18", layers=["layer2", "layer3"], weights="random")
    together = Predictor(Artifact(musc, Preprocess((64, 64))))
    with pytest.raises(ConfigError, match="leave --executor out"):
        list(Cluster(Path("musc"), None, {}).predict_files(together, images, tmp_path / "out"))
