"""The other forms of an exported model, read by the programs that they are for."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from adcore.artifact import Artifact
from adcore.cards import ModelCard
from adcore.export import openvino, triton
from adcore.export.exporter import Export
from adcore.export.gate import Gate
from adcore.export.graph import write_graph
from adcore.export.pictures import check_images
from adcore.model import AnomalyModel, Prediction
from adcore.preprocess import Preprocess
from adcore.testing.needs import skip_without_onnx
from adcore_runtime.backends import open_graph

skip_without_onnx()
import onnx  # noqa: E402

RECORD = {"format": 1, "calibration": {"threshold": {"value": 0.25}}}


class Brightest(AnomalyModel):
    """The brightest pixel; with or without a map."""

    card = ModelCard("brightest", "nowhere:Brightest", "toy", "T", "P", 2020, "S")
    fitted = True

    def __init__(self, maps: bool) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, images: torch.Tensor) -> Prediction:
        anomaly_map = images.mean(1)
        return Prediction(anomaly_map.amax((1, 2)), anomaly_map if self.maps else None)


@pytest.fixture
def export(tmp_path):
    """export(maps, camera, batch): a checked graph of a toy, for an exporter."""

    def make(maps: bool = True, camera: tuple[int, int] | None = None, batch: int | None = None) -> Export:
        artifact = Artifact(Brightest(maps).eval(), Preprocess(size=(16, 24)))
        gate = Gate(artifact, check_images(None, artifact.preprocess, camera), camera, batch)
        path = tmp_path / "graph.onnx"
        write_graph(artifact, path, torch.from_numpy(gate.examples()), camera, batch)
        return Export(path, "part-1", RECORD, gate.check)

    return make


@pytest.mark.parametrize(
    ("maps", "camera", "batch"), [(True, None, None), (False, None, None), (True, (40, 30), None), (True, None, 2)]
)
def test_tritons_configuration_says_what_the_graph_takes_and_gives(export, tmp_path, maps, camera, batch) -> None:
    protocol = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason='pip install "tritonclient[grpc]"')
    from google.protobuf import text_format

    (tmp_path / "files").mkdir()
    path = triton.write(export(maps, camera, batch), tmp_path / "files")
    assert path == tmp_path / "files" / "part-1" / "config.pbtxt"
    config = text_format.Parse(path.read_text(encoding="utf-8"), protocol.ModelConfig())
    assert (config.name, config.backend) == ("part-1", "onnxruntime")
    assert config.max_batch_size == (0 if batch else 8)
    assert config.HasField("dynamic_batching") == (batch is None)
    assert config.parameters["threshold"].string_value == "0.25"
    graph = onnx.load(path.parent / "1" / "model.onnx").graph
    kinds = {"TYPE_FP32": onnx.TensorProto.FLOAT, "TYPE_UINT8": onnx.TensorProto.UINT8}
    for said, real in ((config.input, graph.input), (config.output, graph.output)):
        assert [value.name for value in said] == [value.name for value in real]
        for here, there in zip(said, real, strict=True):
            assert kinds[protocol.DataType.Name(here.data_type)] == there.type.tensor_type.elem_type
            sides = [dim.dim_value or dim.dim_param for dim in there.type.tensor_type.shape.dim]
            shape = list(here.reshape.shape) if here.HasField("reshape") else list(here.dims)
            assert sides == ([*shape] if batch else ["N", *shape])
    assert [value.name for value in config.output] == (["score", "anomaly_map"] if maps else ["score"])


def test_openvinos_form_is_compared_and_carries_the_record(export, tmp_path) -> None:
    library = pytest.importorskip("openvino", reason='pip install "adcore[openvino]"')
    (tmp_path / "files").mkdir()
    checked = []
    one = export()
    path = openvino.write(
        Export(one.graph, one.name, one.record, lambda *found: checked.append(found)), tmp_path / "files"
    )
    assert sorted(file.name for file in path.parent.iterdir()) == ["part-1.bin", "part-1.xml"]
    assert [name for name, _ in checked] == ["OpenVINO IR"]
    assert json.loads(library.Core().read_model(path).get_rt_info([openvino.KEY]).astype(str)) == RECORD
    images = np.random.default_rng(0).random((3, 3, 16, 24), np.float32)
    found = open_graph(path, "openvino", 1)(images)
    np.testing.assert_allclose(found["score"], images.mean(1).max((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found["anomaly_map"], images.mean(1), rtol=1e-5)
