"""The dataset layouts, backbones and exporters of adcore itself, registered through the public hooks."""

from adcore.backbones.cards import BACKBONE_CARDS
from adcore.cards import BackboneCard, DatasetCard, ExporterCard
from adcore.data.builtin import DATASET_CARDS
from adcore.hookspecs import hookimpl


@hookimpl
def adcore_register_datasets() -> list[DatasetCard]:
    return DATASET_CARDS


@hookimpl
def adcore_register_backbones() -> list[BackboneCard]:
    return BACKBONE_CARDS


@hookimpl
def adcore_register_exporters() -> list[ExporterCard]:
    return [
        ExporterCard("onnx", "adcore.export.onnx:write", "One ONNX file, for adcore-predict and ONNX Runtime"),
        ExporterCard("openvino", "adcore.export.openvino:write", "OpenVINO's intermediate representation"),
        ExporterCard("triton", "adcore.export.triton:write", "A model of a Triton model repository"),
    ]
