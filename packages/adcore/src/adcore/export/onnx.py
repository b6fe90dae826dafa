"""One ONNX file with everything that `adcore-predict` needs in its metadata."""

from __future__ import annotations

from pathlib import Path

from adcore_runtime.onnx_file import with_record

from adcore.export.exporter import Export


def write(export: Export, folder: Path) -> Path:
    """NAME.onnx, and NAME.onnx.data beside it where the weights pass protobuf's 2 GB."""
    return write_file(export, folder / f"{export.name}.onnx")


def write_file(export: Export, path: Path) -> Path:
    """The graph with the record, at `path`."""
    import onnx

    weights = export.graph.with_name(f"{export.graph.name}.data")
    if weights.is_file():  # the graph names the file that holds them
        moved = path.with_name(f"{path.name}.data")
        model = onnx.load(export.graph, load_external_data=False)
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = moved.name
        weights.rename(moved)
        content = model.SerializeToString(deterministic=True)
    else:
        content = export.graph.read_bytes()
    path.write_bytes(with_record(content, export.record))
    return path
