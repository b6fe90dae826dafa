"""A model of a Triton model repository: NAME/config.pbtxt and NAME/1/model.onnx, with dynamic batching."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from adcore.export.exporter import Export
from adcore.export.graph import BATCH
from adcore.export.onnx import write_file

TYPES = {1: "TYPE_FP32", 2: "TYPE_UINT8"}  # TensorProto.DataType
MOST = 8  # images that Triton may put into a batch


def write(export: Export, folder: Path) -> Path:
    """Write both files and return the path of config.pbtxt. A graph of a fixed number of images gets no dynamic batching."""
    version = folder / export.name / "1"
    version.mkdir(parents=True)
    path = write_file(export, version / "model.onnx")
    config = version.parent / "config.pbtxt"
    config.write_text(config_text(path, export.name, export.record), encoding="utf-8")
    return config


def config_text(path: Path, name: str, record: Any) -> str:
    """The configuration that says what the graph of `path` takes and gives."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    dynamic = graph.input[0].type.tensor_type.shape.dim[0].dim_param == BATCH
    threshold = record["calibration"].get("threshold")
    lines = [f'name: "{name}"', 'backend: "onnxruntime"', f"max_batch_size: {MOST if dynamic else 0}"]
    for kind, values in (("input", graph.input), ("output", graph.output)):
        lines += [f"{kind} [", ",\n".join(_tensor(value, dynamic) for value in values), "]"]
    lines += ["dynamic_batching { }"] if dynamic else []
    if threshold:
        text = json.dumps(repr(threshold["value"]))
        lines.append(f'parameters {{ key: "threshold" value {{ string_value: {text} }} }}')
    return "\n".join(lines) + "\n"


def _tensor(value: Any, dynamic: bool) -> str:
    """One input or output; Triton's own dimension of a batch comes before `dims`, which cannot be empty."""
    tensor = value.type.tensor_type
    dims = [dim.dim_value for dim in tensor.shape.dim][dynamic:]
    shape = f"dims: {dims}" if dims else "dims: [ 1 ] reshape { shape: [ ] }"
    return f'  {{ name: "{value.name}" data_type: {TYPES[tensor.elem_type]} {shape} }}'
