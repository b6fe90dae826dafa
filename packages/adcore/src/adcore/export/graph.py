"""From a trained model to an ONNX graph: normalisation, model, score and map, traced by torch.export."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from adcore_runtime.backends import INPUT, MAP, SCORE
from torch import Tensor, nn

from adcore.artifact import Artifact
from adcore.errors import AdcoreError, ConfigError, ExportError
from adcore.export.camera import CameraInput
from adcore.maps import within
from adcore.model import counting
from adcore.preprocess import EACH

OPSET = 18
OLDEST_TORCH = "2.14"  # the exporter of torch 2.6 refuses any number of images
LARGEST = 2**31 - 2**20  # bytes of a protobuf message, less what is not a weight
BATCH = "N"  # the name of a dimension that takes any number of images


class ExportGraph(nn.Module):
    """Images -> score (N,), and the map (N, h, w) where the model has one, float32.

    Images are (N, C, h, w) float32, preprocessed but not normalised; with `camera` (height, width) that camera's frames
    (N, H, W, C) uint8.
    """

    def __init__(self, artifact: Artifact, camera: tuple[int, int] | None = None) -> None:
        super().__init__()
        preprocess = artifact.preprocess
        self.enter = CameraInput(preprocess, camera) if camera else nn.Identity()
        self.normalized = preprocess.mean is not None and preprocess.std is not None
        for name in ("mean", "std"):
            values = torch.tensor(getattr(preprocess, name) if self.normalized else [])
            self.register_buffer(name, values[:, None, None])
        if preprocess.roi == EACH:
            raise ExportError(
                "the model was trained with a region of interest for each image, which a graph cannot be given; train it with "
                "one for all"
            )
        if preprocess.roi and preprocess.tile:
            raise ExportError(
                "the model sees tiles of a region of interest, which a graph cannot be given; train it without tiles"
            )
        self.seen = preprocess.common_seen
        with counting(self.seen):
            self.model = artifact.model.export_module()
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        images = self.enter(images)
        if self.normalized:
            images = (images - self.mean) / self.std
        with counting(self.seen):
            score, anomaly_map = self.model(images)
        return (score.float(),) if anomaly_map is None else (score.float(), within(anomaly_map.float(), self.seen))


def require_onnx() -> None:
    """ConfigError unless the packages that write ONNX files are installed, in versions that can."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise ConfigError('exporting needs more packages: pip install "adcore[export]"') from None
    if torch.__version__ < OLDEST_TORCH:
        raise ConfigError(
            f'exporting needs torch {OLDEST_TORCH} or newer, {torch.__version__} is installed: pip install "adcore[export]"'
        )


@torch.no_grad()
def write_graph(
    artifact: Artifact, path: Path, images: Tensor, camera: tuple[int, int] | None, batch: int | None
) -> None:
    """Write the ONNX graph of a model to `path`, without metadata; weights of 2 GB and more stand in `path`.data.

    `images` are two inputs to trace with (see ExportGraph), real ones, since zeros would take other paths. `batch` fixes
    the number of images; None leaves it open. Raises ExportError where the model cannot be traced or converted.
    """
    require_onnx()
    import onnx

    card = artifact.model.card
    if card.not_exportable:
        raise ExportError(f"model '{card.name}' cannot be exported: {card.not_exportable}")
    try:
        with _quiet():
            graph = ExportGraph(artifact, camera)
            images = images if batch is None else images[torch.arange(batch) % len(images)]
            outputs = [SCORE, MAP][: len(graph(images))]
            shapes = None if batch else ({0: torch.export.Dim(BATCH, min=1)},)
            traced = torch.export.export(graph, (images,), dynamic_shapes=shapes, strict=False)
            program = torch.onnx.export(
                traced, dynamo=True, opset_version=OPSET, input_names=[INPUT], output_names=outputs, verbose=False
            )
    except AdcoreError:
        raise
    except Exception as error:  # torch and onnxscript raise many types
        raise ExportError(
            f"model '{card.name}' cannot be converted to ONNX: {_reason(error)}; give it an export_module() without "
            "what is named there, or `not_exportable` in its card (--debug shows where)"
        ) from error
    weights = sum(value.const_value.nbytes for value in program.model.graph.initializers.values())
    program.save(path, external_data=weights > LARGEST)
    model = onnx.load(path, load_external_data=False)
    _strip(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
    onnx.checker.check_model(path)


def _strip(model: Any) -> None:
    """Take out what is of no use to a station: paths and code of this machine, shapes in between; name the batch."""
    graph = model.graph
    dimensions = [d for value in (*graph.input, *graph.output) for d in value.type.tensor_type.shape.dim[:1]]
    for dimension in dimensions:
        if dimension.dim_param:
            dimension.dim_param = BATCH
    graph.ClearField("value_info")
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings and reports of torch's exporter, which are meant for those who write models."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _reason(error: BaseException) -> str:
    """The line of the innermost error that says what was not possible."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = re.sub(r"\x1b\[\d+m", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if "specialized" in line] or lines or [""]  # the code takes one batch size alone
    return f"{type(error).__name__}: {telling[0].lstrip('- ').partition('. ')[0]}"[:300]
