"""The command `adcore-predict`: its files, its output, its exit codes, and what it does not import."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_folder_gives_a_table_maps_and_overlays(model, images, tmp_path, run) -> None:
    out = tmp_path / "out"
    code, stdout, _ = run(model(), images, "--out", out)
    assert code == 0
    assert [line.split()[1] for line in stdout.splitlines()] == ["normal", "ANOMALOUS", "normal", "to"]
    names = ["a.png", "b.png", "more/c.png"]
    expected = (
        [f"maps/{name}.tiff" for name in names] + [f"overlays/{name}.png" for name in names] + ["predictions.csv"]
    )
    assert files(out) == expected
    with open(out / "predictions.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["predicted"] for row in rows] == ["0", "1", "0"]
    assert list(rows[0]) == ["path", "score", "normalized_score", "predicted", "map", "overlay"]
    anomaly_map = tifffile.imread(out / rows[1]["map"])
    assert anomaly_map.dtype == np.float32
    assert anomaly_map.max() == pytest.approx(float(rows[1]["score"]))
    assert Image.open(out / rows[1]["overlay"]).size == (30, 20)


def test_json_and_another_threshold(model, images, run) -> None:
    code, stdout, _ = run(model(), images, "--json", "--threshold", "0.99", "--threads", "1")
    assert code == 0
    found = json.loads(stdout)
    assert [row["predicted"] for row in found["predictions"]] == [0, 0, 0]
    assert found["skipped"] == []


def test_a_bad_image_is_one_line_and_leaves_nothing(model, images, tmp_path, run) -> None:
    (images / "bb.png").write_bytes(b"broken")
    code, _, stderr = run(model(), images, "--out", tmp_path / "out")
    assert code == 2
    assert len(stderr.splitlines()) == 1
    assert "bb.png" in stderr
    assert not (tmp_path / "out").exists()
    code, _, stderr = run(model(), images, "--out", tmp_path / "out", "--skip-bad")
    assert code == 0
    assert "skipped" in stderr
    assert len(files(tmp_path / "out")) == 7


def test_results_are_not_overwritten_unasked(model, images, tmp_path, run) -> None:
    out = tmp_path / "out"
    assert run(model(), images / "a.png", "--out", out)[0] == 0
    code, _, stderr = run(model(), images, "--out", out)
    assert code == 2
    assert "--overwrite" in stderr
    assert run(model(), images / "b.png", "--out", out, "--overwrite")[0] == 0
    assert files(out) == ["maps/b.png.tiff", "overlays/b.png.png", "predictions.csv"]


def test_each_image_is_on_the_disk_before_the_next_is_read(model, images, tmp_path) -> None:
    from adcore_runtime import load

    out, counts = tmp_path / "out", []
    for _ in load(model()).predict_files(images, out):
        counts.append(len(list(out.rglob("*.tiff"))))
    assert counts == [1, 2, 3]


def test_a_full_disk_is_one_line_and_leaves_nothing(model, images, tmp_path, run, monkeypatch) -> None:
    def full(*arguments: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tifffile.imwrite", full)
    code, _, stderr = run(model(), images, "--out", tmp_path / "out")
    assert code == 2
    assert stderr.startswith("adcore-predict: No space left on device")
    assert len(stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [("missing.onnx", "a.png"), ("MODEL", "missing"), ("MODEL", "IMAGES", "--backend", "x"), ("a.png", "b")],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(model, images, run, arguments) -> None:
    named = {"MODEL": model(), "IMAGES": images, "a.png": images / "a.png"}
    code, stdout, stderr = run(*(named.get(argument, argument) for argument in arguments))
    assert (code, stdout) == (2, "")
    assert len(stderr.splitlines()) == 1
    assert stderr.startswith("adcore-predict: ")


HEAVY = ("torch", "timm", "torchvision", "matplotlib", "scipy", "sklearn", "pandas", "onnx", "click", "adcore")


def test_nothing_heavy_is_imported(model, images, tmp_path) -> None:
    code = (
        "import sys; from adcore_runtime.command import main; main()\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    arguments = [model(), images, "--out", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "[]"
