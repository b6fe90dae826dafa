"""A safetensors file with a JSON record and one checksum over both: the format of model files and of checkpoints."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from adcore.errors import ArtifactError
from adcore.files import write_tensors

CHECKSUM = "sha256"  # the entry of the record that holds the checksum


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
    text = json.dumps({**record, CHECKSUM: checksum(record, copies)})
    write_tensors(path, copies, {kind.key: text})


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
    if record.get(CHECKSUM) != checksum(content, tensors):
        raise ArtifactError(f"{path} is damaged: its content does not match its sha256 checksum; {kind.advice}")


def checksum(record: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Hex sha256 over the record and the names, types, shapes and bytes of all tensors (on the CPU, contiguous)."""
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
