"""What adcore wrote into an ONNX file besides the graph, read without a library: threshold, preprocessing, card, versions."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from adcore_runtime.decisions import Calibration
from adcore_runtime.errors import ArtifactError
from adcore_runtime.preprocess import Preprocess

FORMAT = 1
KEY, CHECKSUM = "adcore", "sha256"  # of the file's metadata; in them
METADATA, ENTRY_KEY, ENTRY_VALUE = 14, 1, 2  # fields of onnx.proto: ModelProto.metadata_props, StringStringEntryProto
AGAIN = "export it again with: adcore export"


@dataclass(frozen=True)
class Description:
    """The metadata of an exported model, checked."""

    preprocess: Preprocess
    calibration: Calibration
    camera: tuple[int, int] | None  # height, width of the uint8 images that the graph itself preprocesses
    record: Mapping[str, Any]  # all of it


def describe(path: str | Path) -> Description:
    """The metadata of the model at `path`, with the threshold of its sidecar `path`.json where there is one.

    Raises ArtifactError for a file that is missing, damaged, not written by adcore, or written by a newer one.
    """
    path = Path(path)
    record = read_record(path)
    version, versions = record.get("format"), record.get("versions")
    if isinstance(version, int) and version > FORMAT:
        made_by = versions.get("adcore", "?") if isinstance(versions, dict) else "?"
        raise ArtifactError(
            f"{path} has export format {version} (made by adcore {made_by}), this adcore-runtime reads format {FORMAT}; "
            "upgrade adcore-runtime"
        )
    try:
        if version != FORMAT:
            raise ValueError(f"format {version!r}")
        camera = record.get("camera")
        calibration = Calibration.from_dict(record["calibration"])
        if not all(number is None or math.isfinite(number) for number in calibration.numbers):
            raise ValueError("a number that is not finite")
        description = Description(
            Preprocess.from_dict(record["preprocess"]),
            calibration,
            (int(camera[0]), int(camera[1])) if camera else None,
            record,
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ArtifactError(f"{path} has damaged metadata ({reason}); {AGAIN}") from None
    sidecar = path.with_name(f"{path.name}.json")
    if not sidecar.is_file():
        return description
    changed = description.calibration.with_threshold(_sidecar_threshold(sidecar))
    return Description(description.preprocess, changed, description.camera, record)


def read_record(path: Path) -> dict[str, Any]:
    """The JSON object that adcore put into the ONNX file's metadata; ArtifactError where there is none."""
    if not path.is_file():
        raise ArtifactError(f"{path} does not exist; give an ONNX file that adcore export wrote")
    try:
        with open(path, "rb") as file:
            text, digest = _metadata(file)
    except (ValueError, UnicodeDecodeError):
        raise ArtifactError(f"{path} is no ONNX file, or is damaged; copy it again, or {AGAIN}") from None
    if text is None:
        raise ArtifactError(f"{path} was not written by adcore export: it has no metadata '{KEY}'; {AGAIN}")
    try:
        record = json.loads(text)
        if not isinstance(record, dict):
            raise ValueError("no object")
        if record.get(CHECKSUM, digest) != digest:
            raise ValueError("another checksum")
    except (ValueError, RecursionError):
        raise ArtifactError(
            f"{path} is damaged: its content is not what was written; copy it again, or {AGAIN}"
        ) from None
    return record


def with_record(model: bytes, record: Mapping[str, Any]) -> bytes:
    """A serialised ONNX model with `record` in its metadata, and with a checksum of all else, which `read_record` compares."""
    text = json.dumps({**record, CHECKSUM: hashlib.sha256(model).hexdigest()}, allow_nan=False)
    return model + _field(METADATA, _field(ENTRY_KEY, KEY.encode()) + _field(ENTRY_VALUE, text.encode()))


def _sidecar_threshold(sidecar: Path) -> float:
    try:
        record = json.loads(sidecar.read_text(encoding="utf-8"))
        threshold = float(record["threshold"])
        if isinstance(record["threshold"], bool) or not math.isfinite(threshold):
            raise ValueError
    except (KeyError, TypeError, ValueError, RecursionError):
        raise ArtifactError(f'{sidecar} must hold {{"threshold": NUMBER}}; correct or remove it') from None
    return threshold


def _metadata(file: IO[bytes]) -> tuple[str | None, str]:
    """adcore's entry of a ModelProto's metadata_props, and the sha256 of all else. ValueError for damage."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    text, seen, digest, start = None, set(), hashlib.sha256(), 0
    for number, length in _fields(file, size):
        seen.add(number)
        end = file.tell() + length
        entry = {}
        if number == METADATA:
            for key, span in _fields(file, end):
                entry[key] = file.read(span)
        if entry.get(ENTRY_KEY) == KEY.encode():
            text = entry.get(ENTRY_VALUE, b"").decode()
        else:
            file.seek(start)
            _hash(file, end - start, digest)
        start = end
        file.seek(end)
    if not {1, 7} <= seen:  # ir_version and graph
        raise ValueError("no model")
    return text, digest.hexdigest()


def _hash(file: IO[bytes], count: int, digest: Any) -> None:
    """Add the next `count` bytes to `digest`."""
    while count:
        block = file.read(min(count, 1 << 20))
        digest.update(block)
        count = count - len(block) if block else 0


def _field(number: int, data: bytes) -> bytes:
    """A protobuf field of bytes."""
    return _encoded(number * 8 + 2) + _encoded(len(data)) + data


def _encoded(value: int) -> bytes:
    """A protobuf varint."""
    return bytes([value & 127 | 128]) + _encoded(value >> 7) if value > 127 else bytes([value])


def _fields(file: IO[bytes], end: int) -> Iterator[tuple[int, int]]:
    """(field number, length) of each protobuf field up to `end`; the caller moves past a length. Numbers have length 0."""
    while file.tell() < end:
        number, kind = divmod(_varint(file), 8)
        if kind == 0:
            _varint(file)
            length = 0
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        elif kind == 2:
            length = _varint(file)
        else:
            raise ValueError("a field of unknown kind")
        if number == 0 or file.tell() + length > end:
            raise ValueError("a field beyond the end")
        yield number, length


def _varint(file: IO[bytes]) -> int:
    value = 0
    for shift in range(0, 64, 7):
        byte = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
    raise ValueError("a number without end")
