"""`adcore export`: load a trained model, trace it, compare, and write it in the form that was asked for."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from adcore_runtime.onnx_file import FORMAT

import adcore
from adcore.artifact import MODEL_FILE, Artifact, load, read_header
from adcore.errors import ConfigError, DataError
from adcore.export.exporter import Export
from adcore.export.gate import Gate
from adcore.export.graph import require_onnx, write_graph
from adcore.export.pictures import check_images
from adcore.files import remove_leftovers, removed_on_failure, sha256_file
from adcore.registry import load_exporter

NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Exported:
    """What was written: the main file, all files, and the metadata in it."""

    path: Path
    files: list[Path]
    record: dict[str, Any]


def export_model(
    artifact: str | Path,
    to: str = "onnx",
    out: str | Path = ".",
    camera: tuple[int, int] | None = None,
    check: str | Path | None = None,
    batch: int | None = None,
    name: str = "model",
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda text: None,
) -> Exported:
    """Write the trained model `artifact` into the folder `out` as `to`: onnx, openvino, triton, or a plugin's exporter.

    `camera` (height, width): the graph takes that camera's uint8 frames and preprocesses them itself. `check`: folder of at
    least 8 images to compare on; None: the demo's crops, or seeded pictures. `batch`: a fixed number of images; None: any.
    Raises ExportError where the model cannot be exported or where its graph gives other results: then nothing is written.
    """
    require_onnx()
    write, out = load_exporter(to), Path(out)
    if not NAME.fullmatch(name):
        raise ConfigError(f"'{name}' cannot be a model's name; use letters, digits, '-', '_' and '.'")
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file; choose another --out")
    taken = [path for path in (out / name, *out.glob(f"{name}.*")) if path.exists()]
    if taken and not overwrite:
        raise DataError(f"{taken[0]} exists already; choose another --out or --name, or pass --overwrite")
    sidecar = out / f"{name}.onnx.json"
    if sidecar.is_file():
        progress(f"{sidecar} stays, and sets the threshold of the new file")
    source = Path(artifact) / MODEL_FILE if Path(artifact).is_dir() else Path(artifact)
    loaded, header = load(source), read_header(source)
    if camera and loaded.preprocess.tile:
        raise ConfigError(
            "--camera: the model sees images in tiles, which adcore-predict cuts; export it without --camera"
        )
    images = check_images(Path(check) if check else None, loaded.preprocess, camera)
    progress(f"checking on {len(images.images)} images: {images.source}")
    with removed_on_failure(out):
        out.mkdir(parents=True, exist_ok=True)
        remove_leftovers(out)
        folder = out / f".adcore-{os.getpid()}-0.tmp"
        graph, files = folder / "graph.onnx", folder / "files"
        try:
            files.mkdir(parents=True)
            gate = Gate(loaded, images, camera, batch)
            write_graph(loaded, graph, torch.from_numpy(gate.examples()), camera, batch)
            measured = {"images": len(images.images), "source": images.source, "backends": gate.check_onnx(graph)}
            record = _record(loaded, header, camera, batch, measured) | {"artifact_sha256": sha256_file(source)}
            main = write(Export(graph, name, record, gate.check), files)
            return Exported(out / main.relative_to(files), _place(files, out, main), record)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _record(
    artifact: Artifact,
    header: dict[str, Any],
    camera: tuple[int, int] | None,
    batch: int | None,
    measured: dict[str, Any],
) -> dict[str, Any]:
    """The metadata of an exported model, as adcore_runtime.onnx_file reads it."""
    libraries = ("onnx", "onnxscript")
    return {
        "format": FORMAT,
        "card": {"name": header["model"], "package": header["package"], "version": header["package_version"]},
        "versions": {
            "adcore": adcore.__version__,
            "torch": torch.__version__.split("+")[0],
            **{library: version(library) for library in libraries},
        },
        "preprocess": artifact.preprocess.to_dict(),
        "camera": camera,
        "batch": batch,
        "calibration": artifact.calibration,
        "channels": artifact.preprocess.channels,
        "check": measured,
    }


def _place(files: Path, out: Path, main: Path) -> list[Path]:
    """Move the files below `files` to `out`, `main` after what it needs."""
    paths = sorted((path for path in files.rglob("*") if path.is_file()), key=lambda path: (path == main, path))
    found = [path.relative_to(files) for path in paths]
    for path in found:
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        os.replace(files / path, out / path)
    return [out / path for path in found]
