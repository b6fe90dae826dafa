"""A tiny exported model, written byte by byte, so that these tests need nothing but adcore-runtime and pytest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adcore_runtime import command
from adcore_runtime.onnx_file import with_record
from PIL import Image

FLOAT, UINT8, INT_ATTRIBUTE, INTS_ATTRIBUTE = 1, 2, 2, 7  # of onnx.proto


def number(value: int) -> bytes:
    """A protobuf varint."""
    low, high = value & 127, value >> 7
    return bytes([low | 128]) + number(high) if high else bytes([low])


def message(*fields: tuple[int, int | str | bytes]) -> bytes:
    """A protobuf message of (field number, value)."""
    found = b""
    for key, value in fields:
        if isinstance(value, int):
            found += number(key * 8) + number(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            found += number(key * 8 + 2) + number(len(data)) + data
    return found


def node(kind: str, source: str, target: str, *attributes: bytes) -> tuple[int, bytes]:
    return 1, message((1, source), (2, target), (4, kind), *((5, attribute) for attribute in attributes))


def integer(name: str, value: int) -> bytes:
    return message((1, name), (3, value), (20, INT_ATTRIBUTE))


def integers(name: str, *values: int) -> bytes:
    return message((1, name), *((8, value) for value in values), (20, INTS_ATTRIBUTE))


def tensor(name: str, kind: int, *shape: int | str) -> bytes:
    dims = [(1, message((1, side)) if isinstance(side, int) else message((2, side))) for side in shape]
    return message((1, name), (2, message((1, message((1, kind), (2, message(*dims)))))))


def tiny_model(record: Any, camera: tuple[int, int] | None = None, size: tuple[int, int] = (16, 16)) -> bytes:
    """An ONNX model whose map is the mean of the channels, and whose score is its largest value."""
    keep = integer("keepdims", 0)
    if camera:
        images = tensor("images", UINT8, "N", *camera, 3)
        nodes = [node("Cast", "images", "planes", integer("to", FLOAT))]
        nodes += [node("ReduceMean", "planes", "anomaly_map", integers("axes", 3), keep)]
    else:
        images = tensor("images", FLOAT, "N", 3, *size)
        nodes = [node("ReduceMean", "images", "anomaly_map", integers("axes", 1), keep)]
    nodes += [node("ReduceMax", "anomaly_map", "score", integers("axes", 1, 2), keep)]
    outputs = [(12, tensor("score", FLOAT, "N")), (12, tensor("anomaly_map", FLOAT, "N", *(camera or size)))]
    graph = message(*nodes, (2, "tiny"), (11, images), *outputs)
    fields = [(1, 8), (8, message((1, ""), (2, 13))), (7, graph)]
    if isinstance(record, str):  # as it is, without a checksum
        return message(*fields, (14, message((1, "adcore"), (2, record))))
    return with_record(message(*fields), record)


RECORD = {
    "format": 1,
    "card": {"name": "tiny", "package": "tests", "version": "1"},
    "versions": {"adcore": "0.1.0"},
    "preprocess": {
        "size": [16, 16],
        "crop": None,
        "mean": None,
        "std": None,
        "resize": "bilinear",
        "channels": 3,
        "value_range": None,
    },
    "camera": None,
    "calibration": {"threshold": {"value": 0.5}, "score_range": [0.2, 0.6], "map_range": [0.1, 0.4]},
    "channels": 3,
}


@pytest.fixture
def model(tmp_path) -> Callable[..., Path]:
    """model(key=value, ...): the path of a tiny model whose metadata have these keys, too, or are `text`."""

    def make(camera: tuple[int, int] | None = None, text: str | None = None, **changes: Any) -> Path:
        path = tmp_path / "model.onnx"
        path.write_bytes(tiny_model(text or RECORD | {"camera": camera} | changes, camera))
        return path

    return make


@pytest.fixture
def images(tmp_path) -> Path:
    """A folder of three images, a darker, a brighter one and one in a folder of its own."""
    folder = tmp_path / "in"
    (folder / "more").mkdir(parents=True)
    for name, level in (("a.png", 40), ("b.png", 250), ("more/c.png", 100)):
        values = np.full((20, 30, 3), level, np.uint8)
        values[4:9, 5:12] //= 2
        Image.fromarray(values).save(folder / name)
    return folder


@pytest.fixture
def run(monkeypatch, capsys):
    """run(arguments...) -> exit code, stdout, stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["adcore-predict", *map(str, arguments)])
        code = 0
        try:
            command.main()
        except SystemExit as stop:
            code = stop.code
        return (code, *capsys.readouterr())

    return call
