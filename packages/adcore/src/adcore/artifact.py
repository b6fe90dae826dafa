"""Saving and loading a fitted model: one safetensors file with a JSON header, never a pickle."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from adcore_runtime.decisions import Calibration
from torch import Tensor, nn

import adcore
from adcore import tensorfile
from adcore.errors import AdcoreError, ArtifactError, PluginError, WeightsError
from adcore.header import FORMAT, check_header
from adcore.memory import available_memory
from adcore.model import AnomalyModel
from adcore.preprocess import Preprocess

MODEL_FILE = "model.safetensors"  # its name in the folder of a run
KIND = tensorfile.Kind("adcore", "adcore artifact", "copy or train it again")


@dataclass
class Artifact:
    """A fitted model with all that prediction needs."""

    model: AnomalyModel
    preprocess: Preprocess
    calibration: dict[str, Any] = field(default_factory=dict)  # threshold, its method and source, ranges of values
    training: dict[str, Any] = field(default_factory=dict)  # summary: dataset, category, images, epochs, seed

    @property
    def threshold(self) -> float | None:
        """The calibrated threshold on raw scores; None when there was nothing to calibrate on."""
        return self.calibration.get("threshold", {}).get("value")

    def of_category(self, category: str) -> Artifact:
        """The same with the threshold of one category; ConfigError where it has none of its own."""
        Calibration.from_dict(self.calibration).of_category(category)
        return replace(self, calibration={**self.calibration, "threshold": self.calibration["categories"][category]})

    @property
    def pixel_threshold(self) -> float | None:
        """Just above the highest value of normal images' maps in the calibration; None where they are not known."""
        return Calibration.from_dict(self.calibration).pixel_threshold


def save(path: str | Path, artifact: Artifact, include_backbone: bool = False) -> dict[str, Any]:
    """Write `artifact` to `path` atomically and return its header.

    Frozen backbone weights are referred to by name and sha256; `include_backbone`, and always random weights and those
    from a file that the user named, put them inside. The same content gives the same bytes: no time and no folder is
    stored. Raises ArtifactError for a threshold or another number that is not finite.
    """
    from adcore.registry import model_origin

    model = artifact.model
    state, backbones = model.state_dict(), []
    for prefix, info in _frozen_backbones(model):
        inside = include_backbone or info.inside
        backbones.append(
            {
                "prefix": prefix,
                "backbone": info.backbone,
                "source": info.source,
                "sha256": info.sha256,
                "inside": inside,
            }
        )
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
    check_header({**header, tensorfile.CHECKSUM: "0" * 64}, f"{path} cannot be written: it")
    tensorfile.write(path, KIND, header, state)
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
    """The header of an artifact, checked by its schema; its checksum is compared by `load` alone, which reads all of it.

    Raises ArtifactError for anything that is not a whole artifact of the known format.
    """
    path = _file(path)
    header = tensorfile.read_record(path, KIND)
    check_header(header, str(path))
    return header


def load(path: str | Path, device: str | torch.device = "cpu") -> Artifact:
    """Load a fitted model; no file is opened but `path` and, where it refers to one, a backbone's by its name.

    Raises ArtifactError for a damaged file, PluginError when the model's package is missing or fails, WeightsError when
    a backbone is missing or another one.
    """
    path = _file(path)
    header = read_header(path)
    state = tensorfile.read_tensors(path, KIND)
    with ThreadPoolExecutor(1) as pool:  # the checksum takes one core while the model is built on another
        verified = pool.submit(tensorfile.verify, path, KIND, header, state)
        try:
            with _named(path):
                model = _build(header)
                _check_backbones(model, header)
                load_state(model, state, absent=tuple(b["prefix"] for b in header["backbones"] if not b["inside"]))
        finally:
            verified.result()  # a damaged file is called so, whatever else failed because of it
    model.fitted = True
    model.eval().to(device)
    preprocess = Preprocess.from_dict(header["preprocess"])
    return Artifact(model, preprocess, header["calibration"], header["training"])


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Inside, every error names the model file."""
    try:
        yield
    except (WeightsError, PluginError) as error:
        raise type(error)(f"{path}: {error}") from error.__cause__
    except AdcoreError as error:
        raise ArtifactError(f"{path}: {error}") from None


def _build(header: dict[str, Any]) -> AnomalyModel:
    """The untrained model that a header describes."""
    from adcore.backbones.build import stored_weights
    from adcore.registry import create_model, require_model

    require_model(header["model"], header["package"], header["package_version"])
    config = {key: tuple(value) if isinstance(value, list) else value for key, value in header["config"].items()}
    try:
        with stored_weights(inside=all(b["inside"] for b in header["backbones"])):
            return create_model(header["model"], **config)
    except AdcoreError:
        raise
    except Exception as error:  # the class of a third party may raise anything
        package = f"{header['package']} {header['package_version']}"
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise PluginError(
            f"model '{header['model']}' of {package} cannot be built from the stored configuration: {reason}"
        ) from error


def load_state(model: nn.Module, state: dict[str, Tensor], absent: tuple[str, ...] = ()) -> None:
    """Load `state` into `model`; buffers take the shapes of `state` (a memory bank grows in training), large ones its memory.

    Keys that start with a prefix in `absent` may be missing. Raises ArtifactError naming what does not fit.
    """
    for key, tensor in state.items():
        owner, _, leaf = key.rpartition(".")
        try:
            module = model.get_submodule(owner)
        except AttributeError:
            continue  # reported below as unexpected
        if leaf in module._buffers and (module._buffers[leaf] is None or module._buffers[leaf].shape != tensor.shape):
            large = tensor.nbytes > available_memory() // 2  # it stays where it is: in the file, which is mapped
            module._buffers[leaf] = tensor if large else torch.empty_like(tensor)
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


def _check_backbones(model: nn.Module, header: dict[str, Any]) -> None:
    """The weights found on this machine must be the ones that the model was trained with."""
    from adcore.backbones.build import WeightsInfo

    parts = {prefix: model.get_submodule(prefix.removesuffix(".")) for prefix, _ in _frozen_backbones(model)}
    stored = {entry["prefix"]: entry for entry in header["backbones"]}
    if parts.keys() != stored.keys():
        raise ArtifactError(
            f"its backbones {sorted(stored)} are not those of the model, {sorted(parts)}; "
            "the package that defines the model may have another version"
        )
    for prefix, entry in stored.items():
        info = parts[prefix].weights_info
        if entry["inside"]:
            parts[prefix].weights_info = WeightsInfo(entry["backbone"], entry["source"], entry["sha256"], inside=True)
        elif info.sha256 != entry["sha256"]:
            raise WeightsError(
                f"it was trained with {entry['source']} (sha256 begins {entry['sha256'][:8]}) for backbone "
                f"'{entry['backbone']}', but another file was found here; put that file in the backbone folder"
            )
