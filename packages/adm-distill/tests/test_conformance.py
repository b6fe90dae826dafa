"""Every card of adm-distill keeps the contract of adcore."""

from adcore.testing import ModelConformance


class TestSTFPM(ModelConformance):
    model = "stfpm"


class TestSTFPMResnet18(ModelConformance):
    model = "stfpm-resnet18"


class TestSTFPMLite0(ModelConformance):
    model = "stfpm-efficientnet-lite0"
