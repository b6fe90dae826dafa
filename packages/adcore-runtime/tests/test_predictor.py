"""Loading an exported model and predicting with it: what goes in, what comes out, what is refused."""

from __future__ import annotations

import json
from importlib.util import find_spec

import adcore_runtime
import numpy as np
import pytest
from adcore_runtime.errors import ArtifactError, ConfigError, DataError
from PIL import Image

needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="pip install openvino")
BACKENDS = ["onnxruntime", pytest.param("openvino", marks=needs_openvino)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_file_and_arrays_of_each_type_have_one_score(model, tmp_path, backend) -> None:
    values = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)  # the model's size: no resize
    Image.fromarray(values).save(tmp_path / "a.png")
    predictor = adcore_runtime.load(model(), backend=backend, threads=1)
    expected = (values.astype(np.float32) / 255).mean(2)
    wide = values.astype(np.uint16) * 257
    for image in (tmp_path / "a.png", str(tmp_path / "a.png"), values, wide, values.astype(np.float32) / 255):
        result = predictor.predict(image)
        np.testing.assert_allclose(result.anomaly_map, expected, atol=1e-6)
        assert result.score == pytest.approx(expected.max(), abs=1e-6)
        assert result.threshold == 0.5
        assert result.is_anomalous
        assert result.normalized_score == pytest.approx(0.5 + (result.score - 0.5) / 0.4)


def test_a_gray_image_has_three_equal_channels(model) -> None:
    gray = np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)
    predictor = adcore_runtime.load(model())
    for image in (gray, gray[..., None], np.stack([gray] * 3, 2)):
        np.testing.assert_allclose(predictor.predict(image).anomaly_map, gray / 255, atol=1e-6)


def test_float_values_are_taken_as_they_are(model) -> None:
    result = adcore_runtime.load(model()).predict(np.full((16, 16), 200, np.float32))  # not guessed to be 0 to 255
    assert result.score == pytest.approx(200)


@pytest.mark.parametrize(
    ("image", "match"),
    [
        (np.zeros((4, 4, 2), np.uint8), "is no image"),
        (np.zeros((4, 4), np.int64), "int64 is no image"),
        (np.zeros((4, 4, 3)), "float64 is no image"),
        (np.zeros((0, 4), np.uint8), "is no image"),
        (np.full((4, 4), np.nan, np.float32), "NaN"),
    ],
)
def test_what_is_no_image_is_refused(model, image, match) -> None:
    with pytest.raises(DataError, match=match):
        adcore_runtime.load(model()).predict(image)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_camera_model_takes_that_cameras_frames_alone(model, backend) -> None:
    predictor = adcore_runtime.load(model(camera=(20, 30)), backend=backend)
    frame = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    np.testing.assert_allclose(predictor.predict(frame).anomaly_map, frame.mean(2), rtol=1e-5)
    assert predictor.predict(frame[..., 0]).score == frame[..., 0].max()
    for wrong in (frame[:10], frame.swapaxes(0, 1), frame.astype(np.uint16), frame[..., :2]):
        with pytest.raises(DataError, match="20x30|2 channels"):
            predictor.predict(wrong)


def test_the_threshold_comes_from_the_argument_then_the_sidecar_then_the_file(model) -> None:
    path = model()
    sidecar = path.with_name("model.onnx.json")
    assert adcore_runtime.load(path).threshold == 0.5
    sidecar.write_text('{"threshold": 0.75}')
    assert adcore_runtime.load(path).threshold == 0.75
    assert adcore_runtime.load(path, threshold=0.9).threshold == 0.9
    for wrong in ("{}", '{"threshold": "high"}', '{"threshold": NaN}', "[", "[1]"):
        sidecar.write_text(wrong)
        with pytest.raises(ArtifactError, match="must hold"):
            adcore_runtime.load(path)


def test_a_model_without_a_calibration_decides_nothing_until_a_threshold_is_given(model, images) -> None:
    path = model(calibration={})
    result = adcore_runtime.load(path).predict(images / "b.png")
    assert (result.threshold, result.is_anomalous, result.normalized_score) == (None, None, None)
    given = adcore_runtime.load(path, threshold=0.1).predict(images / "b.png")
    assert (given.threshold, given.is_anomalous, given.normalized_score) == (0.1, True, None)


CHANGES = {
    "newer": ({"format": 2, "versions": {"adcore": "9.1"}}, r"made by adcore 9\.1.*upgrade adcore-runtime"),
    "no format": ({"format": None}, "damaged metadata"),
    "calibration": ({"calibration": {"threshold": 3}}, "damaged metadata"),
    "range": ({"calibration": {"threshold": {"value": 1.0}, "score_range": ["a", "b"]}}, "damaged metadata"),
    "infinite": ({"calibration": {"threshold": {"value": float("inf")}}}, "damaged metadata"),
    "resize": ({"preprocess": {"size": [8, 8], "resize": "cubic", "channels": 3}}, "damaged metadata.*cubic"),
    "size": ({"preprocess": {"size": None, "resize": "nearest", "channels": 3}}, "damaged metadata"),
    "camera": ({"camera": [3]}, "damaged metadata"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_metadata_that_are_not_understood_are_named(model, change) -> None:
    changes, match = CHANGES[change]
    record = dict(adcore_runtime.load(model()).description.record)
    del record["sha256"]
    with pytest.raises(ArtifactError, match=match):
        adcore_runtime.load(model(text=json.dumps(record | changes)))


def test_every_changed_byte_of_the_graph_is_noticed(model) -> None:
    path = model()
    whole = path.read_bytes()
    for place in range(0, whole.rindex(b"\x06adcore") - 8, 5):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        with pytest.raises(ArtifactError, match=r"model\.onnx"):
            adcore_runtime.load(path)


def test_every_truncated_file_is_refused(model, tmp_path) -> None:
    whole = model().read_bytes()
    cut = tmp_path / "cut.onnx"
    for length in range(0, len(whole), 7):
        cut.write_bytes(whole[:length])
        with pytest.raises(ArtifactError, match=r"cut\.onnx"):
            adcore_runtime.load(cut)


@pytest.mark.parametrize("backend", BACKENDS)
def test_foreign_and_damaged_files_are_named(model, tmp_path, backend) -> None:
    foreign = tmp_path / "foreign.onnx"
    for content in (b"", b"hello, this is text", b"\x89PNG\r\n\x1a\n", bytes(1000), bytes(range(256))):
        foreign.write_bytes(content)
        with pytest.raises(ArtifactError, match="no ONNX file"):
            adcore_runtime.load(foreign, backend=backend)
    record = dict(adcore_runtime.load(model()).description.record)
    del record["sha256"]
    path = model(text=json.dumps(record))
    foreign.write_bytes(path.read_bytes().replace(b"\x06adcore", b"\x06others"))
    with pytest.raises(ArtifactError, match="not written by adcore export"):
        adcore_runtime.load(foreign, backend=backend)
    foreign.write_bytes(path.read_bytes().replace(b"ReduceMax", b"ReduceMix"))
    with pytest.raises(ArtifactError, match=f"{backend} refuses its graph"):
        adcore_runtime.load(foreign, backend=backend)
    foreign.write_bytes(path.read_bytes().replace(b"\x06images", b"\x06frames"))
    with pytest.raises(ArtifactError, match="where adcore writes 'images'"):
        adcore_runtime.load(foreign, backend=backend)
    with pytest.raises(ArtifactError, match="does not exist"):
        adcore_runtime.load(tmp_path / "missing.onnx", backend=backend)


def test_arguments_that_are_not_valid(model) -> None:
    with pytest.raises(ConfigError, match="unknown backend 'cuda'; valid ones: onnxruntime, openvino"):
        adcore_runtime.load(model(), backend="cuda")
    with pytest.raises(ConfigError, match="threads"):
        adcore_runtime.load(model(), threads=0)
    with pytest.raises(ConfigError, match="finite"):
        adcore_runtime.load(model(), threshold=float("nan"))


def test_a_score_that_is_not_finite_names_the_image(model, tmp_path) -> None:
    predictor = adcore_runtime.load(model())
    with pytest.raises(DataError, match="NaN or infinite"):
        predictor.predict(np.full((16, 16), 3e38, np.float32))  # the sum of three channels is beyond float32
