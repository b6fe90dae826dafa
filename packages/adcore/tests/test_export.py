"""Exported graphs give what their model gives; what does not is refused, and nothing is left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import adcore_runtime
import numpy as np
import pytest
import torch
from adcore import plugins, registry
from adcore.artifact import Artifact, save
from adcore.cards import ModelCard
from adcore.errors import ArtifactError, ConfigError, DataError, ExportError
from adcore.export import gate, graph
from adcore.export.camera import CameraInput
from adcore.export.pictures import CheckImages, check_images, seeded_pictures
from adcore.export.run import export_model
from adcore.inference.predictor import load
from adcore.model import AnomalyModel, Prediction
from adcore.preprocess import RESIZE_METHODS, Preprocess
from adcore.registry import register
from adcore.testing.needs import skip_without_onnx
from adcore_runtime.backends import open_graph
from adcore_runtime.onnx_file import read_record
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

skip_without_onnx()


class Mean(AnomalyModel):
    """Distance of each pixel to a colour."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("colour", torch.tensor([0.1, -0.2, 0.3])[:, None, None])

    def forward(self, images: torch.Tensor) -> Prediction:
        anomaly_map = (images - self.colour).square().mean(1)
        return Prediction(anomaly_map.flatten(1).amax(1), anomaly_map)


class Changed(Mean):
    """One whose exported form is another, by little."""

    def export_module(self) -> torch.nn.Module:
        other = Mean()
        other.fitted, other.colour = True, self.colour * 1.001
        return other.export_module()


class Loops(Mean):
    """One that cannot be traced for any number of images."""

    def forward(self, images: torch.Tensor) -> Prediction:
        return Prediction(torch.stack([image.max() for image in images]))


PREPROCESS = Preprocess(size=(24, 32), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
CALIBRATION = {
    "threshold": {"value": 1.5, "method": "given", "source": "test", "note": ""},
    "score_range": [0.0, 4.0],
    "map_range": [0.1, 2.0],
}


def card(name: str, kind: type, **changes: str) -> ModelCard:
    facts = {"family": "toy", "title": "T", "paper": "P", "year": 2020, "summary": "S", "normalization": "none"}
    return ModelCard(name=name, target=f"{kind.__module__}:{kind.__qualname__}", **facts, **changes)


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """trained(kind, ...): the model file of an instance of `kind`."""
    real = registry.load_target

    def make(kind: type = Mean, preprocess: Preprocess = PREPROCESS, **changes: str) -> Path:
        shown = card(f"export-{kind.__name__.lower()}", kind, **changes)
        register(shown)
        # a test file has no importable name
        monkeypatch.setattr(registry, "load_target", lambda target: kind if target == shown.target else real(target))
        model = kind()
        model.card, model.config, model.fitted = shown, {}, True
        save(tmp_path / "model.safetensors", Artifact(model.eval(), preprocess, CALIBRATION))
        return tmp_path / "model.safetensors"

    yield make
    plugins.load_plugins.cache_clear()  # which knows the cards that were registered


@pytest.fixture
def pictures(tmp_path) -> Path:
    """A folder of eight images of two sizes."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, picture in enumerate(seeded_pictures(PREPROCESS)):
        Image.fromarray(picture[: 30 + number % 2]).save(folder / f"{number}.png")
    return folder


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_an_exported_file_says_what_its_model_says(trained, pictures, tmp_path, run_cli) -> None:
    source, out = trained(), tmp_path / "out"
    code, text, err = run_cli("export", source, "--out", out, "--check", pictures)
    assert (code, err) == (0, "")
    assert f"checking on 8 images: {pictures}" in text
    assert "onnxruntime" in text
    assert "0 of 8 decisions differ" in text
    assert left(out) == ["model.onnx"]
    here, there = load(source), adcore_runtime.load(out / "model.onnx")
    for image in sorted(pictures.iterdir()):
        expected, found = here.predict(image), there.predict(image)
        assert found.score == pytest.approx(expected.score, rel=1e-4)
        np.testing.assert_allclose(found.anomaly_map, expected.anomaly_map, atol=1e-4)
        assert found.is_anomalous == expected.is_anomalous
        assert found.threshold == 1.5
        assert there.observe(image)[1] == pytest.approx(here.observe(image)[1], rel=2e-3)
    code, said, _ = run_cli("info", out / "model.onnx")
    assert code == 0
    for words in ("export-mean", "threshold:   1.5", "any number of float32 images", "24 x 32", "decisions differ"):
        assert words in said
    record = json.loads(run_cli("info", out / "model.onnx", "--json")[1])
    assert record["check"]["images"] == 8
    assert record["preprocess"]["mean"] == [0.5, 0.4, 0.3]
    assert str(tmp_path).encode() not in (out / "model.onnx").read_bytes().replace(str(pictures).encode(), b"")
    code, _, err = run_cli("export", source, "--out", out, "--check", pictures)
    assert code == 2
    assert "exists already" in err


def test_the_same_model_gives_the_same_bytes(trained, tmp_path) -> None:
    source = trained()
    first, second = (export_model(source, out=tmp_path / name).path.read_bytes() for name in ("a", "b"))
    assert first == second


def test_a_graph_that_gives_other_results_is_not_written(trained, tmp_path) -> None:
    with pytest.raises(ExportError, match="onnxruntime gives another .*; nothing was written"):
        export_model(trained(Changed), out=tmp_path / "new" / "out")
    assert not (tmp_path / "new").exists()


@pytest.fixture
def compare(trained):
    """compare(threshold, score_range, change): what the gate says of a backend that gives `change(score, map)`."""
    artifact = load(trained()).artifact
    images = CheckImages([(f"{i}.png", picture) for i, picture in enumerate(seeded_pictures(PREPROCESS))], "pictures")

    def make(change, threshold: float = 100.0, score_range: tuple[float, float] = (0.0, 1.0)) -> gate.Difference:
        artifact.calibration = {"threshold": {"value": threshold}, "score_range": score_range}

        def run(inputs: np.ndarray) -> dict[str, np.ndarray]:
            with torch.no_grad():
                outputs = graph.ExportGraph(artifact)(torch.from_numpy(inputs))
            score, anomaly_map = change(*(output.numpy() for output in outputs))
            return {"score": score, "anomaly_map": anomaly_map}

        return gate.Gate(artifact, images, None, None).check("a backend", run)

    return make


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda score, m: (score * 1.0002, m),
            "a backend gives another score on 0.png: .* difference is 2.0e-04 of it",
        ),
        (lambda score, m: (score * np.float32("nan"), m), "a backend gives another score on 0.png: nan, torch"),
        (lambda score, m: (score, m + 0.002 * m.max()), "a backend gives another map on .*.png: the difference is "),
        (
            lambda score, m: (score, m * np.float32("nan")),
            "a backend gives another map on 0.png: the difference is nan",
        ),
        # of two images in a batch, the first one's
        (lambda score, m: (np.broadcast_to(score[:1], len(score)), m), "a backend gives another score on 1.png"),
    ],
)
def test_the_gate_names_backend_image_and_difference(compare, change, words) -> None:
    with pytest.raises(ExportError, match=words):
        compare(change)


def test_the_gate_measures_the_largest_difference(compare) -> None:
    found = compare(lambda score, m: (score * np.float32(1.00005), m + np.float32(1e-4) * m.max()))
    assert found.score == pytest.approx(5e-5, rel=0.05)
    assert 5e-5 < found.map < 2e-4
    assert found.flips == 0


def test_a_decision_may_differ_at_the_threshold_alone(compare, trained) -> None:
    score = load(trained()).predict(seeded_pictures(PREPROCESS)[0]).score

    def less(score: np.ndarray, m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return score * np.float32(1 - 5e-5), m

    threshold = score * (1 - 2e-5)
    assert compare(less, threshold, (0.0, 1.0)).flips == 1  # 2e-5 of the score is less than 1e-3 of the range
    with pytest.raises(ExportError, match=r"a backend decides otherwise on 0.png: score .*, torch .*, threshold"):
        compare(less, threshold, (0.0, 1e-3))


def test_what_cannot_be_exported_says_why(trained, tmp_path, run_cli) -> None:
    with pytest.raises(ExportError, match="'export-loops' cannot be converted to ONNX: .*specialized"):
        export_model(trained(Loops), out=tmp_path / "out")
    why = "it compares images with one another"
    with pytest.raises(ExportError, match=f"cannot be exported: {why}"):
        export_model(trained(not_exportable=why), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert f"export:      no: {why}" in run_cli("info", "export-mean")[1]
    every, exportable = (run_cli("list-models", "--json", *only)[1] for only in ((), ("--exportable",)))
    missing = {card["name"] for card in json.loads(every)} - {card["name"] for card in json.loads(exportable)}
    assert "export-mean" in missing
    assert missing == {card.name for card in registry.list_models() if card.not_exportable}


def test_a_threshold_that_was_set_beside_an_older_file_is_mentioned(trained, tmp_path, run_cli) -> None:
    source, out = trained(), tmp_path / "out"
    export_model(source, out=out)
    (out / "model.onnx.json").write_text('{"threshold": 2.5}')
    assert "model.onnx.json stays, and sets the threshold" in run_cli("export", source, "--out", out, "--overwrite")[1]
    assert left(out) == ["model.onnx", "model.onnx.json"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--camera", "12by9"), "--camera 12by9: give height x width"),
        (("--camera", "0x9"), "--camera 0x9: give height x width"),
        (("--camera", "31x51"), "where the model was exported for a camera of 31x51"),
        (("--to", "coreml"), "unknown exporter 'coreml'"),
        (("--name", "../x"), "cannot be a model's name"),
        (("--batch", "2", "--dynamic-batch"), "exclude each other"),
    ],
)
def test_wrong_options_are_one_line(trained, pictures, tmp_path, run_cli, arguments, words) -> None:
    code, _, err = run_cli("export", trained(), "--out", tmp_path / "out", "--check", pictures, *arguments)
    assert code == 2
    assert words in err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_too_few_images_and_a_file_in_the_way_are_refused(trained, pictures, tmp_path) -> None:
    (pictures / "0.png").unlink()
    with pytest.raises(ConfigError, match="holds 7 images, a check needs at least 8"):
        export_model(trained(), out=tmp_path / "out", check=pictures)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is a file"):
        export_model(trained(), out=tmp_path / "file")


def test_a_disk_that_is_full_leaves_nothing(trained, tmp_path, run_cli, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "out" / "x"))

    monkeypatch.setattr("adcore.export.run.write_graph", full)
    code, _, err = run_cli("export", trained(), "--out", tmp_path / "out")
    assert code == 2
    assert "No space left on device" in err
    assert not (tmp_path / "out").exists()


def test_a_fixed_batch_and_weights_beside_the_file(trained, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(graph, "LARGEST", 0)
    exported = export_model(trained(), out=tmp_path / "out", batch=3, name="part")
    assert [path.name for path in exported.files] == ["part.onnx.data", "part.onnx"]
    assert read_record(exported.path)["batch"] == 3
    with pytest.raises(ArtifactError, match="takes 3 images at a time.*export it again without --batch"):
        adcore_runtime.load(exported.path)
    run = open_graph(exported.path, "onnxruntime", None)
    assert run(np.zeros((3, 3, 24, 32), np.float32))["score"].shape == (3,)


def test_without_the_packages_one_line_says_what_to_install(tmp_path) -> None:
    (tmp_path / "onnxscript.py").write_text("raise ImportError('not installed')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "adcore", "export", "model.safetensors", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.strip() == 'adcore: exporting needs more packages: pip install "adcore[export]"'


@st.composite
def cameras(draw):
    """(preprocessing, frames (1, H, W, C) uint8)."""
    size = (draw(st.integers(1, 30)), draw(st.integers(1, 30)))
    stored = Preprocess(
        size=size,
        crop=draw(st.none() | st.tuples(st.integers(1, size[0]), st.integers(1, size[1]))),
        resize=draw(st.sampled_from(RESIZE_METHODS)),
        channels=draw(st.sampled_from((1, 3))),
        value_range=draw(st.sampled_from((None, (0.25, 0.75)))),
    )
    shape = (2, draw(st.integers(1, 50)), draw(st.integers(1, 50)), stored.channels)
    x, y = draw(st.integers(0, shape[2] - 1)), draw(st.integers(0, shape[1] - 1))
    region = x, y, draw(st.integers(1, shape[2] - x)), draw(st.integers(1, shape[1] - y))
    stored = replace(stored, region=draw(st.sampled_from((None, region))))
    seed = draw(st.integers(0, 2**32 - 1))
    return stored, torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))


@given(cameras())
def test_preprocessing_in_the_graph_equals_preprocess(case) -> None:
    stored, frames = case
    found = CameraInput(stored, tuple(frames.shape[1:3]))(frames)
    expected = torch.stack([stored(frame.permute(2, 0, 1).float() / 255) for frame in frames])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", ["bilinear", "noise-padding"])
def test_a_camera_s_graph_takes_its_frames(trained, tmp_path, method) -> None:
    source = trained(preprocess=replace(PREPROCESS, resize=method, crop=(20, 30)))
    exported = export_model(source, out=tmp_path / "out", camera=(37, 53))
    frame = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)
    expected, found = load(source).predict(frame), adcore_runtime.load(exported.path).predict(frame)
    assert found.score == pytest.approx(expected.score, rel=1e-4)
    here, there = load(source).observe(frame)[1], adcore_runtime.load(exported.path).observe(frame)[1]
    assert there == pytest.approx(here, rel=2e-3)


def test_an_exported_model_sees_its_region_alone(trained, tmp_path) -> None:
    source = trained(preprocess=replace(PREPROCESS, region=(5, 3, 21, 17)))
    exported = adcore_runtime.load(export_model(source, out=tmp_path / "out").path)
    frame = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)
    expected = load(source).predict(frame).score
    assert exported.predict(frame).score == pytest.approx(expected, rel=1e-4)
    frame[:3], frame[:, :5], frame[20:], frame[:, 26:] = 255, 255, 255, 255
    assert exported.predict(frame).score == pytest.approx(expected, rel=1e-4)
    with pytest.raises(DataError, match=r"region 5,3,21,17 .* beyond the image of 20x30 px"):
        exported.predict(np.zeros((30, 20, 3), np.uint8))
    with pytest.raises(DataError, match="beyond the image of 20x30 px"):
        CameraInput(replace(PREPROCESS, region=(5, 3, 21, 17)), (30, 20))


def test_pictures_are_in_the_values_and_of_the_size_that_the_model_expects() -> None:
    thermal = Preprocess(size=(16, 16), channels=5, value_range=(273.0, 373.0))
    images = check_images(None, thermal, None)
    assert images.source == "seeded pictures"
    assert len(images.images) == 8
    values = images.images[1][1]
    assert values.dtype == np.float32
    assert 273 <= values.min() < values.max() <= 373
    frames = check_images(None, Preprocess(size=(16, 16), channels=1), (40, 30))
    assert {frame.shape for _, frame in frames.images} == {(40, 30, 1)}
