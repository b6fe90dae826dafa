"""Saving and loading a fitted model: one safetensors file with a JSON header, never a pickle."""

from __future__ import annotations

import json
import struct
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import adcore
from adcore.errors import ArtifactError, PluginError, WeightsError
from adcore.files import atomic_path
from adcore.model import AnomalyModel
from adcore.preprocess import Preprocess

FORMAT = 1
MODEL_FILE = "model.safetensors"  # its name in the folder of a run
_KEY = "adcore"  # the one metadata entry; its value is the JSON header


@dataclass
class Artifact:
    """A fitted model with all that prediction needs."""

    model: AnomalyModel
    preprocess: Preprocess
    calibration: dict[str, Any] = field(default_factory=dict)  # threshold, its method and source, score range
    training: dict[str, Any] = field(default_factory=dict)  # summary: dataset, category, images, epochs, seed


def save(path: str | Path, artifact: Artifact, include_backbone: bool = False) -> dict[str, Any]:
    """Write `artifact` to `path` atomically and return its header.

    Frozen backbone weights are referred to by name and sha256; `include_backbone`, and random weights always, put them
    inside. The same content gives the same bytes: no time and no folder is stored.
    """
    from adcore.registry import model_origin

    model = artifact.model
    state, backbones = model.state_dict(), []
    for prefix, info in _frozen_backbones(model):
        inside = include_backbone or info.sha256 is None
        backbones.append({"prefix": prefix, **asdict(info), "inside": inside})
        if not inside:
            state = {key: value for key, value in state.items() if not key.startswith(prefix)}
    origin = model_origin(model.card.name)
    header = {
        "format": FORMAT,
        "model": model.card.name,
        "package": origin.distribution,
        "package_version": origin.version,
        "config": model.config,
        "preprocess": artifact.preprocess.to_dict(),
        "calibration": artifact.calibration,
        "training": artifact.training,
        "backbones": backbones,
        "versions": {"adcore": adcore.__version__, "torch": torch.__version__.split("+")[0]},
    }
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={_KEY: json.dumps(header, sort_keys=True)})
    return header


def _file(path: str | Path) -> Path:
    """The artifact at `path`, or in the folder of a run."""
    path = Path(path)
    if path.is_dir():
        path /= MODEL_FILE
    if not path.is_file():
        raise ArtifactError(f"{path} does not exist; a trained model is a file such as {MODEL_FILE}")
    return path


def read_header(path: str | Path) -> dict[str, Any]:
    """The JSON header of an artifact; ArtifactError for anything that is not a whole artifact of a known format."""
    path = _file(path)
    with open(path, "rb") as file:
        start = file.read(16)
    pickled = start[:1] == b"\x80" and start[8:9] != b"{"  # a safetensors header's length may begin with this byte too
    if start[:4] == b"PK\x03\x04" or pickled:
        raise ArtifactError(
            f"{path} is a pickle, which can run code when loaded; only safetensors artifacts are loaded"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, struct.error) as error:
        raise ArtifactError(
            f"{path} is truncated or not a safetensors file ({error}); copy or train it again"
        ) from None
    if _KEY not in metadata:
        raise ArtifactError(f"{path} is a safetensors file but not an adcore artifact; train one with: adcore train")
    try:
        header = json.loads(metadata[_KEY])
        version = int(header["format"])
    except (ValueError, KeyError, TypeError):
        raise ArtifactError(f"{path} has a damaged header; copy or train it again") from None
    if version > FORMAT:
        made_by = header.get("versions", {}).get("adcore", "?")
        raise ArtifactError(
            f"{path} has format {version} (made by adcore {made_by}), this adcore reads up to {FORMAT}; upgrade adcore"
        )
    return header


def load(path: str | Path, device: str | torch.device = "cpu") -> Artifact:
    """Load a fitted model. Raises ArtifactError, or WeightsError when a backbone that it refers to is missing or other."""
    from adcore.backbones.features import deferred_weights
    from adcore.registry import create_model, require_model

    path = _file(path)
    header = read_header(path)
    try:
        require_model(header["model"], header["package"], header["package_version"])
    except PluginError as error:
        raise PluginError(f"{path}: {error}") from None
    inside = all(b["inside"] for b in header["backbones"])
    config = {key: tuple(value) if isinstance(value, list) else value for key, value in header["config"].items()}
    try:
        with deferred_weights() if inside else nullcontext():
            model = create_model(header["model"], **config)
        with safe_open(path, framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise ArtifactError(f"{path} is damaged ({error}); copy or train it again") from None
    _check_backbones(path, model, header)
    load_state(model, state, absent=tuple(b["prefix"] for b in header["backbones"] if not b["inside"]))
    model.fitted = True
    model.eval().to(device)
    preprocess = Preprocess.from_dict(header["preprocess"])
    return Artifact(model, preprocess, header["calibration"], header["training"])


def load_state(model: nn.Module, state: dict[str, Tensor], absent: tuple[str, ...] = ()) -> None:
    """Load `state` into `model`; buffers take the shapes of `state` (a memory bank grows in training).

    Keys that start with a prefix in `absent` may be missing. Raises ArtifactError naming what does not fit.
    """
    for key, tensor in state.items():
        owner, _, leaf = key.rpartition(".")
        try:
            module = model.get_submodule(owner)
        except AttributeError:
            continue  # reported below as unexpected
        if leaf in module._buffers and (module._buffers[leaf] is None or module._buffers[leaf].shape != tensor.shape):
            module._buffers[leaf] = torch.empty_like(tensor)
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ArtifactError(f"the stored weights do not fit the model: {str(error).splitlines()[-1].strip()}") from None
    missing = [key for key in missing if not key.startswith(absent)] if absent else missing
    if missing or unexpected:
        raise ArtifactError(
            f"the stored weights do not fit the model: missing {missing[:3]}, unexpected {unexpected[:3]}; "
            "the package that defines the model may have another version"
        )


def _frozen_backbones(model: nn.Module) -> list[tuple[str, Any]]:
    found = [
        (f"{name}." if name else "", getattr(module, "weights_info", None)) for name, module in model.named_modules()
    ]
    return [(prefix, info) for prefix, info in found if info is not None]


def _check_backbones(path: str | Path, model: nn.Module, header: dict[str, Any]) -> None:
    """The weights found on this machine must be the ones that the model was trained with."""
    present = dict(_frozen_backbones(model))
    for stored in header["backbones"]:
        if stored["inside"]:
            continue
        info = present.get(stored["prefix"])
        if info is None or info.sha256 != stored["sha256"]:
            raise WeightsError(
                f"{path} was trained with {stored['source']} (sha256 begins {(stored['sha256'] or '')[:8]}) for backbone "
                f"'{stored['backbone']}', but another file was found here; put that file in the backbone folder"
            )
