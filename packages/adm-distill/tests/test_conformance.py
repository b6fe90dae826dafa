"""Every card of adm-distill keeps the contract of adcore."""

from typing import ClassVar

import pytest
from adcore.testing import ModelConformance


class TestSTFPM(ModelConformance):
    model = "stfpm"
    repeats = "stfpm-resnet18"


class TestSTFPMResnet18(ModelConformance):
    model = "stfpm-resnet18"


class TestSTFPMLite0(ModelConformance):
    model = "stfpm-efficientnet-lite0"


@pytest.mark.slow  # images of 256 px: test_efficientad.py fits, saves and loads one in every run of the suite
class TestEfficientADSmall(ModelConformance):
    model = "efficientad-small"
    image_size = 256  # its autoencoder takes no less
    images = 1
    epochs = 1
    overrides: ClassVar = {"teacher": "random"}


@pytest.mark.slow  # the same code as the small one, three times the work
class TestEfficientADMedium(TestEfficientADSmall):
    model = "efficientad-medium"


class TestFRE(ModelConformance):
    model = "fre"
    repeats = "fre-efficientnet-lite0"


class TestFRELite0(ModelConformance):
    model = "fre-efficientnet-lite0"


class TestReverseDistillation(ModelConformance):
    model = "reverse-distillation"
    repeats = "reverse-distillation-resnet18"
    images = 2
    epochs = 1


class TestReverseDistillationResnet18(ModelConformance):
    model = "reverse-distillation-resnet18"


class TestReverseDistillationLite0(ModelConformance):
    model = "reverse-distillation-efficientnet-lite0"
