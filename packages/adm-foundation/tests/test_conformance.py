"""Every card keeps the contract, cut to two encoder layers and two decoder blocks.

The variants and most sizes run with the small encoder. A class that differs from another one in numbers or in the backbone
alone names that one as `repeats`: in the quick suite its card is checked, and its fits are slow tests.
"""

from typing import ClassVar

from adcore.testing import ModelConformance

SHORT = {
    "target_layers": (0, 1),
    "decoder_depth": 2,
    "encoder_groups": ((0,), (1,)),
    "decoder_groups": ((0,), (1,)),
}
SMALL = {**SHORT, "backbone": "dinov2_vit_small_14"}
REGISTERS = {**SHORT, "backbone": "dinov2reg_vit_small_14"}


class DinomalyConformance(ModelConformance):
    image_size = 56
    epochs = 1
    overrides = SHORT


class TestDinomalySmall224(DinomalyConformance):
    model = "dinomaly-small-224"


class TestDinomalySmall392(DinomalyConformance):
    model = "dinomaly-small-392"
    repeats = "dinomaly-small-224"


class TestDinomalySmall448(DinomalyConformance):
    model = "dinomaly-small-448"
    repeats = "dinomaly-small-224"


class TestDinomalyBase224(DinomalyConformance):
    model = "dinomaly-base-224"
    repeats = "dinomaly-small-224"
    overrides = SMALL


class TestDinomalyBase392(DinomalyConformance):
    model = "dinomaly-base-392"
    repeats = "dinomaly-small-224"


class TestDinomalyBase448(DinomalyConformance):
    model = "dinomaly-base-448"
    repeats = "dinomaly-small-224"
    overrides = SMALL


class TestDinomalyLarge224(DinomalyConformance):
    model = "dinomaly-large-224"
    repeats = "dinomaly-small-224"
    overrides = SMALL


class TestDinomalyLarge392(DinomalyConformance):
    model = "dinomaly-large-392"
    repeats = "dinomaly-small-224"
    overrides = SMALL


class TestDinomalyLarge448(DinomalyConformance):
    model = "dinomaly-large-448"
    repeats = "dinomaly-small-224"


class TestDinomalyBaseline(DinomalyConformance):
    model = "dinomaly-baseline"
    repeats = "dinomaly-small-224"
    overrides = SMALL


class TestDinomalyRegSmall(DinomalyConformance):
    model = "dinomaly-reg-small"


class TestDinomalyRegBase(DinomalyConformance):
    model = "dinomaly-reg-base"
    repeats = "dinomaly-reg-small"
    overrides = REGISTERS


class TestDinomalyRegLarge(DinomalyConformance):
    model = "dinomaly-reg-large"
    repeats = "dinomaly-reg-small"
    overrides = REGISTERS


class TestDinomaly2(DinomalyConformance):
    model = "dinomaly2"
    overrides = REGISTERS


class TestInpFormer(DinomalyConformance):
    model = "inp-former"
    overrides = REGISTERS


class TestDinomalyGem(DinomalyConformance):
    model = "dinomaly-gem"
    overrides = SMALL


class TestDinomalyFocal(DinomalyConformance):
    model = "dinomaly-focal"
    overrides = SMALL


class TestDinomalyAux(DinomalyConformance):
    model = "dinomaly-aux"
    overrides = SMALL


class TestDinomalyScale(DinomalyConformance):
    model = "dinomaly-scale"
    overrides = SMALL


class TestSuperSimpleNet(ModelConformance):
    model = "supersimplenet"
    repeats = "supersimplenet-efficientnet-lite0"
    epochs = 1


class TestSuperSimpleNetSupervised(ModelConformance):
    model = "supersimplenet-supervised"
    epochs = 1
    overrides: ClassVar = {"backbone": "resnet18"}


class TestSuperSimpleNetLite0(ModelConformance):
    model = "supersimplenet-efficientnet-lite0"
    epochs = 1


class TestUniNet(ModelConformance):
    """On a smaller backbone, for speed; the parity test trains the wide one."""

    model = "uninet"
    epochs = 1
    overrides: ClassVar = {"backbone": "resnet18"}


class TestUniNetLite0(ModelConformance):
    model = "uninet-efficientnet-lite0"
    epochs = 1
