"""`adcore predict`: one image after the other, files that appear together, and models that break the contract."""

from __future__ import annotations

import csv
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from adcore import artifact as artifacts
from adcore import registry
from adcore.artifact import Artifact
from adcore.cards import ModelCard
from adcore.data.samples import DatasetReader, Sample
from adcore.errors import AdcoreError, DataError, PluginError
from adcore.evaluation.evaluate import calibrate
from adcore.evaluation.score import ScoredImage, Scoring, score_samples
from adcore.inference.batch import predict_files
from adcore.inference.predictor import Predictor, load
from adcore.model import AnomalyModel, Prediction
from adcore.preprocess import Preprocess
from adcore_runtime.results import result_name
from PIL import Image

CARD = ModelCard("toy", f"{__name__}:Toy", "toy", "Toy", "none", 2020, "toy")
SIZE = (8, 12)


def good(images: torch.Tensor) -> Prediction:
    anomaly_map = images.mean(1)
    return Prediction(anomaly_map.flatten(1).amax(1), anomaly_map)


class Toy(AnomalyModel):
    """Its map is the image."""

    answer: Callable[[torch.Tensor], object] = staticmethod(good)

    def forward(self, images: torch.Tensor) -> Prediction:
        return type(self).answer(images)


@pytest.fixture(autouse=True)
def _toy_is_installed(install_toy) -> None:
    install_toy(CARD, Toy)


@pytest.fixture
def model(tmp_path) -> Path:
    toy = registry.create_model("toy")
    toy.fitted = True
    calibration = {"threshold": {"value": 0.5, "method": "youden"}, "score_range": [0.0, 1.0]}
    artifacts.save(tmp_path / "model.safetensors", Artifact(toy, Preprocess(SIZE), calibration))
    return tmp_path / "model.safetensors"


def write(path: Path, value: int = 100) -> Path:
    """An image of one gray value with a black corner."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((*SIZE, 3), value, np.uint8)
    pixels[0, 0] = 0
    Image.fromarray(pixels).save(path)
    return path


def table(folder: Path) -> list[dict[str, str]]:
    with open(folder / "predictions.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_each_row_names_its_own_map_and_overlay(model, tmp_path) -> None:
    images = [write(tmp_path / "in" / name, 10 * i) for i, name in enumerate(["a/b.png", "a_b.png", "a/b.bmp"], 1)]
    rows = list(predict_files(load(model), tmp_path / "in", tmp_path / "out"))
    assert len({row["map"] for row in rows}) == len({row["overlay"] for row in rows}) == 3
    assert {row["map"] for row in rows} == {"maps/a/b.png.tiff", "maps/a_b.png.tiff", "maps/a/b.bmp.tiff"}
    assert [Path(row["path"]) for row in table(tmp_path / "out")] == sorted(images)
    for row in table(tmp_path / "out"):
        raw = tifffile.imread(tmp_path / "out" / row["map"])
        assert float(raw.max()) == float(row["score"])
        assert Image.open(tmp_path / "out" / row["overlay"]).size == SIZE[::-1]


def test_images_are_decoded_once_and_let_go(model, tmp_path, monkeypatch) -> None:
    for i in range(40):
        write(tmp_path / "in" / f"{i:02}.png")
    decoded: list[str] = []
    original = DatasetReader.image
    monkeypatch.setattr(DatasetReader, "image", lambda self, sample: decoded.append(sample) or original(self, sample))
    rows = predict_files(load(model), tmp_path / "in", tmp_path / "out")
    next(rows)
    assert len(decoded) <= max(16, torch.get_num_threads())  # a group is read ahead, not the whole folder
    assert len(list(rows)) == 39
    assert len(decoded) == 40


def test_lines_appear_as_images_are_scored(model, tmp_path, run_cli) -> None:
    first = write(tmp_path / "in" / "0.png")
    (tmp_path / "in" / "1.png").write_bytes(b"broken")
    code, out, err = run_cli("predict", model, tmp_path / "in")
    assert code == 2
    assert str(first) in out
    assert "1.png" in err


@pytest.mark.parametrize("before", [False, True])
def test_a_failure_leaves_what_was_there(model, tmp_path, before) -> None:
    write(tmp_path / "in" / "0.png")
    if before:
        list(predict_files(load(model), tmp_path / "in", tmp_path / "out"))
    (tmp_path / "in" / "1.png").write_bytes(b"broken")
    kept = {name: (tmp_path / "out" / name).read_bytes() for name in files(tmp_path / "out")}
    with pytest.raises(DataError, match=r"1\.png"):
        list(predict_files(load(model), tmp_path / "in", tmp_path / "out"))
    assert {name: (tmp_path / "out" / name).read_bytes() for name in files(tmp_path / "out")} == kept
    assert (tmp_path / "out").exists() == before


def test_an_earlier_runs_files_go_and_no_other(model, tmp_path, run_cli) -> None:
    write(tmp_path / "in" / "old" / "a.png")
    assert run_cli("predict", model, tmp_path / "in", "--out", tmp_path / "out")[0] == 0
    (tmp_path / "out" / "maps" / "old" / "mine.tiff").write_text("mine")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    (tmp_path / "in" / "old" / "a.png").rename(tmp_path / "in" / "new.png")
    code, _, err = run_cli("predict", model, tmp_path / "in", "--out", tmp_path / "out", "--overwrite")
    assert code == 0, err
    expected = ["maps/new.png.tiff", "maps/old/mine.tiff", "notes.txt", "overlays/new.png.png", "predictions.csv"]
    assert [name for name in files(tmp_path / "out") if not name.startswith(".")] == expected
    assert not (tmp_path / "out" / "overlays" / "old").exists()


def test_a_table_cannot_name_files_elsewhere_for_removal(model, tmp_path) -> None:
    write(tmp_path / "in" / "a.png")
    victim = tmp_path / "victim.tiff"
    victim.write_text("keep")
    (tmp_path / "out").mkdir()
    rows = f"map,overlay\nmaps/../../victim.tiff,{victim}\n"
    (tmp_path / "out" / "predictions.csv").write_text(rows)
    list(predict_files(load(model), tmp_path / "in", tmp_path / "out"))
    assert victim.read_text() == "keep"


def test_the_longest_names_a_file_system_takes(model, tmp_path) -> None:
    names = [f"{'n' * 236}.png", f"{'n' * 235}m.png", f"{'é' * 118}.png"]
    for name in names:
        write(tmp_path / "in" / name)
    list(predict_files(load(model), tmp_path / "in", tmp_path / "out"))
    rows = table(tmp_path / "out")
    assert {Path(row["path"]).name for row in rows} == set(names)
    assert len({row["map"] for row in rows}) == len(names)
    assert all((tmp_path / "out" / row[kind]).is_file() for row in rows for kind in ("map", "overlay"))


def test_what_a_killed_run_left_goes_with_the_next(model, tmp_path) -> None:
    write(tmp_path / "in" / "a.png")
    (tmp_path / "out" / ".adcore-999999999-0.tmp.predict" / "maps").mkdir(parents=True)
    (tmp_path / "out" / ".adcore-999999999-0.tmp.predict" / "maps" / "a.tiff").write_text("half")
    list(predict_files(load(model), tmp_path / "in", tmp_path / "out"))
    assert files(tmp_path / "out") == ["maps/a.png.tiff", "overlays/a.png.png", "predictions.csv"]


def test_result_names_do_not_collide() -> None:
    assert result_name(Path("a/b.png")) == "a/b.png"
    assert result_name(Path("x.png.tiff/y.png")).split("/")[0] != "x.png.tiff"  # maps/x.png.tiff is the map of x.png
    assert result_name(Path("n" * 230)) == result_name(Path("n" * 230)) != result_name(Path("n" * 229))


def test_cells_that_begin_like_formulas_are_text(model, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("=cmd()", "+1+1", "-x", "@sum"):
        write(tmp_path / name / "a.png")
        list(predict_files(load(model), Path(name), tmp_path / "out"))
        with open(tmp_path / "out" / "predictions.csv", encoding="utf-8") as file:
            assert file.readlines()[1].startswith(f"'{name}")


FAULTS = {
    "nothing": (lambda images: None, "returned nothing"),
    "tuple": (lambda images: (images.mean((1, 2, 3)), None), "returned a tuple"),
    "batch": (lambda images: Prediction(torch.zeros(2)), r"score of shape \(2,\)"),
    "scalar": (lambda images: Prediction(torch.zeros(())), r"score of shape \(\)"),
    "map size": (lambda images: Prediction(torch.zeros(1), torch.zeros(1, 4, 4)), r"anomaly_map of shape \(1, 4, 4\)"),
    "map channels": (lambda images: Prediction(torch.zeros(1), images[:, :1]), r"anomaly_map of shape \(1, 1, 8, 12\)"),
    "type": (lambda images: Prediction(torch.zeros(1, dtype=torch.int64)), "score of type torch.int64"),
    "number": (lambda images: Prediction(0.5), "score as float"),
    "exit": (lambda images: sys.exit(0), "failed on .*0.png: SystemExit"),
    "error": (lambda images: {}["x"], "failed on .*0.png: KeyError"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_model_that_breaks_the_contract_is_named(model, tmp_path, run_cli, monkeypatch, fault) -> None:
    image = write(tmp_path / "in" / "0.png")
    answer, words = FAULTS[fault]
    monkeypatch.setattr(Toy, "answer", staticmethod(answer))
    code, out, err = run_cli("predict", model, image)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "model 'toy' of toy-package 1.0" in err
    with pytest.raises(PluginError, match=words):
        list(predict_files(load(model), image))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["score", "map"])
def test_values_that_are_not_finite_name_the_image(model, tmp_path, run_cli, monkeypatch, value, where) -> None:
    def broken(images: torch.Tensor) -> Prediction:
        prediction = good(images)
        if images.max() > 0.6:
            (prediction.score if where == "score" else prediction.anomaly_map)[0] = value
        return prediction

    write(tmp_path / "in" / "0.png", 100)
    bad = write(tmp_path / "in" / "1.png", 200)
    monkeypatch.setattr(Toy, "answer", staticmethod(broken))
    code, out, err = run_cli("predict", model, tmp_path / "in", "--json")
    assert (code, out) == (2, "")
    assert str(bad) in err
    assert "NaN or infinite" in err
    with pytest.raises(DataError, match="NaN or infinite"):
        load(model).predict(bad)
    samples = [Sample(bad, "test", 0, "")]
    with pytest.raises(DataError, match=r"1\.png"):
        score_samples(load(model).model, Preprocess(SIZE), DatasetReader(tmp_path), samples)


def test_too_little_memory_is_one_line(model, tmp_path, run_cli, monkeypatch) -> None:
    image = write(tmp_path / "in" / "0.png")

    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Toy, "answer", staticmethod(full))
    code, _, err = run_cli("predict", model, image)
    assert code == 2
    assert err.count("\n") == 1
    assert f"{image}: not enough memory" in err
    monkeypatch.setattr(Toy, "answer", staticmethod(good))
    monkeypatch.setattr(DatasetReader, "image", full)
    code, _, err = run_cli("predict", model, image)
    assert code == 2
    assert err.count("\n") == 1
    assert f"{image}: not enough memory" in err


def test_a_reader_that_ends_the_program_is_an_error(model, tmp_path, run_cli, monkeypatch) -> None:
    image = write(tmp_path / "in" / "0.png")
    monkeypatch.setattr(DatasetReader, "image", lambda *_: sys.exit(0))
    code, _, err = run_cli("predict", model, image)
    assert code == 2
    assert str(image) in err
    assert "SystemExit" in err


def test_a_model_that_ends_the_program_elsewhere_is_an_error_too(model, tmp_path, run_cli, monkeypatch) -> None:
    image = write(tmp_path / "in" / "0.png")
    monkeypatch.setattr(Toy, "warm_up", lambda self: sys.exit(0))
    code, out, err = run_cli("predict", model, image)
    assert (code, out) == (2, "")
    assert "SystemExit" in err


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [SIZE, (*SIZE, 1), (*SIZE, 3)])
def test_a_cameras_frame_has_the_score_of_its_file(model, tmp_path, dtype, shape) -> None:
    scale = 1 if dtype is np.float32 else np.iinfo(dtype).max
    frame = (np.linspace(0, 1, SIZE[0] * SIZE[1]).reshape(SIZE) * scale).astype(dtype)
    frame = frame.reshape(*SIZE, 1) if len(shape) == 3 else frame
    frame = np.repeat(frame, 3, axis=2) if shape[-1] == 3 else frame
    gray = frame if frame.ndim == 2 else frame[..., 0]
    tifffile.imwrite(tmp_path / "frame.tiff", gray)
    predictor = load(model)
    assert predictor.predict(np.ascontiguousarray(frame)).score == predictor.predict(tmp_path / "frame.tiff").score


@pytest.mark.parametrize(
    "frame", [np.zeros((4, 4, 2), np.uint8), np.zeros((4, 4), np.int64), torch.zeros(4, 4), torch.zeros(1, 4, 4)]
)
def test_what_is_no_image_is_refused(model, frame) -> None:
    with pytest.raises(AdcoreError, match="give|channels"):
        load(model).predict(frame)


def test_overlays_take_their_range_from_normal_images_of_the_calibration(tmp_path) -> None:
    def scored(label: int, value: float) -> ScoredImage:
        sample = Sample(tmp_path / "x.png", "val", label, "")
        return ScoredImage(sample, value, np.array([[0.0, 0.0], [0.1, value]], np.float32), None)

    calibration = calibrate(Scoring([scored(0, 0.4), scored(0, 0.2), scored(1, 9.0)]), "normal_p95", "val")
    assert calibration["map_range"] == pytest.approx([0.05, 0.4])
    toy = registry.create_model("toy")
    toy.fitted = True
    predictor = Predictor(Artifact(toy, Preprocess(SIZE), calibration))
    drawn = []
    for number, names in enumerate((["a.png"], ["a.png", "bright.png"])):  # the same whatever else is in the folder
        for name in names:
            write(tmp_path / str(number) / name, 250 if name == "bright.png" else 60)
        list(predict_files(predictor, tmp_path / str(number), tmp_path / f"out{number}"))
        drawn.append((tmp_path / f"out{number}" / "overlays" / "a.png.png").read_bytes())
    assert drawn[0] == drawn[1]


NOBODY = 2**31 - 2  # no process has this number


def killed_at(rows: int, model: Path, source: Path, out: Path, origin: str = "") -> Path:
    """A copy of `out` as a kill after so many rows leaves it, with a last row that is cut."""
    predicting = predict_files(load(model), source, out, origin=origin)
    for _ in range(rows):
        next(predicting)
    left = out.with_name("killed")
    (begun,) = out.glob(".adcore-*.predict")
    shutil.copytree(begun, left / f".adcore-{NOBODY}-0.tmp.predict")
    predicting.close()
    with open(left / f".adcore-{NOBODY}-0.tmp.predict" / "predictions.csv", "a", encoding="utf-8") as file:
        file.write(str(source / "04.png") + ",0.1")
    return left


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files(folder) if not name.startswith(".")}


def test_a_killed_prediction_goes_on_and_ends_with_the_same_files(model, tmp_path, monkeypatch) -> None:
    for i in range(8):
        write(tmp_path / "in" / f"{i:02}.png", 20 * i)
    list(predict_files(load(model), tmp_path / "in", tmp_path / "whole"))
    left = killed_at(4, model, tmp_path / "in", tmp_path / "out")
    (lost,) = left.rglob("maps/02.png.tiff")
    lost.write_bytes(b"")  # as a power cut leaves it
    decoded: list[str] = []
    original = DatasetReader.image
    monkeypatch.setattr(
        DatasetReader, "image", lambda self, one: decoded.append(one.image_path.name) or original(self, one)
    )
    rows = list(predict_files(load(model), tmp_path / "in", left, resume=True))
    assert sorted(decoded) == ["02.png", "04.png", "05.png", "06.png", "07.png"]
    assert len(rows) == 5
    whole, resumed = contents(tmp_path / "whole"), contents(left)
    tables = [part.pop("predictions.csv").splitlines() for part in (whole, resumed)]
    assert whole == resumed
    assert sorted(tables[0]) == sorted(tables[1])
    assert not list(left.glob(".adcore-*"))


def test_a_killed_prediction_of_another_model_is_not_continued(model, tmp_path) -> None:
    for i in range(3):
        write(tmp_path / "in" / f"{i:02}.png")
    left = killed_at(1, model, tmp_path / "in", tmp_path / "out", origin="one")
    with pytest.raises(DataError, match="another model or source"):
        list(predict_files(load(model), tmp_path / "in", left, origin="two", resume=True))


def test_resume_on_the_command_line(model, tmp_path, run_cli) -> None:
    for i in range(3):
        write(tmp_path / "in" / f"{i:02}.png")
    assert (
        run_cli("predict", model.parent, tmp_path / "in", "--out", tmp_path / "out", "--resume")[0] == 0
    )  # a run's folder
    assert len(table(tmp_path / "out")) == 3
    code, _, err = run_cli("predict", model, tmp_path / "in", "--out", tmp_path / "out", "--resume")
    assert (code, "not empty" in err) == (2, True)
    assert run_cli("predict", model, tmp_path / "in", "--resume")[0] == 2
