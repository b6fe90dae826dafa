"""What adcore wrote into an ONNX file besides the graph, read without a library: threshold, preprocessing, card, versions."""

from __future__ import annotations

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
KEY = "adcore"  # of the file's metadata
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
        numbers = [calibration.threshold, *(calibration.score_range or ()), *(calibration.map_range or ())]
        if not all(number is None or math.isfinite(number) for number in numbers):
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
            text = _metadata(file).get(KEY)
    except (ValueError, UnicodeDecodeError):
        raise ArtifactError(f"{path} is no ONNX file, or is damaged; copy it again, or {AGAIN}") from None
    if text is None:
        raise ArtifactError(f"{path} was not written by adcore export: it has no metadata '{KEY}'; {AGAIN}")
    try:
        record = json.loads(text)
        if not isinstance(record, dict):
            raise ValueError("no object")
    except (ValueError, RecursionError):
        raise ArtifactError(f"{path} has damaged metadata; copy it again, or {AGAIN}") from None
    return record


def _sidecar_threshold(sidecar: Path) -> float:
    try:
        record = json.loads(sidecar.read_text(encoding="utf-8"))
        threshold = float(record["threshold"])
        if isinstance(record["threshold"], bool) or not math.isfinite(threshold):
            raise ValueError
    except (KeyError, TypeError, ValueError, RecursionError):
        raise ArtifactError(f'{sidecar} must hold {{"threshold": NUMBER}}; correct or remove it') from None
    return threshold


def _metadata(file: IO[bytes]) -> dict[str, str]:
    """The metadata_props of a ModelProto; everything else is skipped, not read. ValueError for damage."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    found, seen = {}, set()
    for number, length in _fields(file, size):
        seen.add(number)
        if number == METADATA:
            end = file.tell() + length
            entry = {}
            for key, span in _fields(file, end):
                entry[key] = file.read(span).decode()
            found[entry.get(ENTRY_KEY, "")] = entry.get(ENTRY_VALUE, "")
        else:
            file.seek(length, os.SEEK_CUR)
    if not {1, 7} <= seen:  # ir_version and graph
        raise ValueError("no model")
    return found


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
