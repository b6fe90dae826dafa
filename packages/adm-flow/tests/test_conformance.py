"""Every card of adm-flow keeps the contract of adcore."""

from typing import Any, ClassVar

import pytest
from adcore.testing import ModelConformance


class TestFastFlow(ModelConformance):
    model = "fastflow"
    repeats = "fastflow-resnet18"
    overrides: ClassVar[dict[str, Any]] = {"flow_steps": 2}


class TestFastFlowResnet18(ModelConformance):
    model = "fastflow-resnet18"


class TestFastFlowResnet50(ModelConformance):
    model = "fastflow-resnet50"
    repeats = "fastflow-resnet18"
    overrides: ClassVar[dict[str, Any]] = {"flow_steps": 2}


class TestFastFlowLite0(ModelConformance):
    model = "fastflow-efficientnet-lite0"


class TestFastFlowDeit(ModelConformance):
    model = "fastflow-deit"
    overrides: ClassVar[dict[str, Any]] = {"flow_steps": 2}


@pytest.mark.slow  # a network of 356 million parameters, built for every check
class TestFastFlowCait(ModelConformance):
    model = "fastflow-cait"
    overrides: ClassVar[dict[str, Any]] = {"flow_steps": 2}


class TestCFlowResnet18(ModelConformance):
    model = "cflow-resnet18"


class TestCFlowResnet50(ModelConformance):
    model = "cflow-resnet50"
    repeats = "cflow-resnet18"
    overrides: ClassVar[dict[str, Any]] = {"coupling_blocks": 2}


class TestCFlowLite0(ModelConformance):
    model = "cflow-efficientnet-lite0"


class TestUFlow(ModelConformance):
    model = "uflow"
    repeats = "uflow-resnet18"
    overrides: ClassVar[dict[str, Any]] = {"flow_steps": 2}


class TestUFlowResnet18(ModelConformance):
    model = "uflow-resnet18"


class TestUFlowLite0(ModelConformance):
    model = "uflow-efficientnet-lite0"


@pytest.mark.slow  # two networks of 400 million parameters together
class TestUFlowMcait(ModelConformance):
    model = "uflow-mcait"
    overrides: ClassVar[dict[str, Any]] = {"flow_steps": 1}


class TestCSFlow(ModelConformance):
    model = "csflow"
    repeats = "csflow-efficientnet-lite0"
    image_size = 128
    overrides: ClassVar[dict[str, Any]] = {"cross_conv_channels": 16, "coupling_blocks": 2}


class TestCSFlowLite0(ModelConformance):
    model = "csflow-efficientnet-lite0"
    overrides: ClassVar[dict[str, Any]] = {"cross_conv_channels": 32}
