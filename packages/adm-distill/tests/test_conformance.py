"""Every card of adm-distill keeps the contract of adcore."""

from typing import ClassVar

import pytest
from adcore.testing import ModelConformance


class TestSTFPM(ModelConformance):
    model = "stfpm"


class TestSTFPMResnet18(ModelConformance):
    model = "stfpm-resnet18"


class TestSTFPMLite0(ModelConformance):
    model = "stfpm-efficientnet-lite0"


class TestEfficientADSmall(ModelConformance):
    model = "efficientad-small"
    image_size = 256  # its autoencoder takes no less
    images = 2
    epochs = 1
    overrides: ClassVar = {"teacher": "random"}


@pytest.mark.slow  # the same code as the small one, three times the work
class TestEfficientADMedium(TestEfficientADSmall):
    model = "efficientad-medium"
