"""A safetensors file with a JSON record and one checksum over both: the format of model files and of checkpoints."""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from adcore.errors import ArtifactError
from adcore.files import atomic_path, write_tensors

CHECKSUM = "sha256"  # the entry of the record that holds the checksum
_BLANK = "0" * 64  # in its place until the file is written


@dataclass(frozen=True)
class Kind:
    """What a file is, and what its error messages say."""

    key: str  # of the one metadata entry; its value is the record as JSON
    name: str  # "adcore artifact"
    advice: str  # what to do about a damaged one


def write(path: str | Path, kind: Kind, record: dict[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write `tensors` and `record` (plain data) atomically. The same content gives the same bytes."""
    # clones, since safetensors refuses tensors that share their memory
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    record = json.loads(json.dumps(record))  # as it will be read: keys are text, tuples are lists
    with atomic_path(path) as temporary:
        write_tensors(temporary, copies, {kind.key: json.dumps({CHECKSUM: _BLANK, **record})})
        digest = checksum(temporary, record).encode()
        with open(temporary, "r+b") as file, mmap.mmap(file.fileno(), 0) as content:
            place = content.find(_BLANK.encode())  # the first: safetensors writes the metadata before the tensors
            content[place : place + len(digest)] = digest


def read_record(path: Path, kind: Kind) -> dict[str, Any]:
    """The record of a file, not yet compared with its checksum; ArtifactError for anything that is not such a file."""
    try:
        with open(path, "rb") as file:
            start = file.read(16)
        # a safetensors header's length may begin with the same byte as a pickle
        if start[:4] == b"PK\x03\x04" or (start[:1] == b"\x80" and start[8:9] != b"{"):
            raise ArtifactError(
                f"{path} is a pickle, which can run code when loaded; only safetensors files are loaded"
            )
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise ArtifactError(f"{path} is truncated or not a safetensors file ({_line(error)}); {kind.advice}") from None
    if kind.key not in metadata:
        raise ArtifactError(f"{path} is a safetensors file but not an {kind.name}; {kind.advice}")
    try:
        record = json.loads(metadata[kind.key])
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise ArtifactError(f"{path} has a damaged header; {kind.advice}")
    return record


def read_tensors(path: Path, kind: Kind) -> dict[str, Tensor]:
    """The tensors of a file, on the CPU, not yet compared with the checksum; ArtifactError when they cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except Exception as error:  # torch and safetensors raise several types for a wrong size or type
        raise ArtifactError(f"{path} is damaged ({_line(error)}); {kind.advice}") from None


def verify(path: Path, kind: Kind, record: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Raise ArtifactError unless record and tensors are those that were written."""
    content = {key: value for key, value in record.items() if key != CHECKSUM}
    stored = record.get(CHECKSUM)
    if stored != checksum(path, content) and stored != checksum_by_tensor(content, tensors):
        raise ArtifactError(f"{path} is damaged: its content does not match its sha256 checksum; {kind.advice}")


def checksum(path: Path, record: Mapping[str, Any]) -> str:
    """Hex sha256 over the record, the names, types, shapes and places of all tensors, and the bytes of the tensors.

    The bytes are one piece: a thread that hashes many small ones waits for the interpreter's lock at each.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        start = 8 + int.from_bytes(mapped[:8], "little")
        layout = {name: entry for name, entry in json.loads(mapped[8:start]).items() if name != "__metadata__"}
        digest = hashlib.sha256(json.dumps([record, layout], sort_keys=True).encode())
        with memoryview(mapped) as content, content[start:] as tensors:
            digest.update(tensors)
    return digest.hexdigest()


def checksum_by_tensor(record: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """The checksum of files that were written before `checksum`: tensor by tensor, in the order of their names."""
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
