"""OpenVINO's intermediate representation: NAME.xml with the graph and the record, NAME.bin with the weights."""

from __future__ import annotations

import json
from pathlib import Path

from adcore_runtime.backends import open_graph

from adcore.errors import ConfigError
from adcore.export.exporter import Export

KEY = "adcore"  # of the record among the runtime information of the graph


def write(export: Export, folder: Path) -> Path:
    """Write the graph in float32, compare what was written with the model, and return the path of NAME.xml."""
    try:
        import openvino
    except ImportError:
        raise ConfigError('--to openvino needs one more package: pip install "adcore[openvino]"') from None
    model = openvino.Core().read_model(export.graph)
    model.set_rt_info(json.dumps(export.record), [KEY])
    path = folder / f"{export.name}.xml"
    openvino.save_model(model, path, compress_to_fp16=False)
    export.check("OpenVINO IR", open_graph(path, "openvino", None))
    return path
