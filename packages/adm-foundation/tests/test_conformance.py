"""Every card keeps the contract; cut to two layers and two decoder blocks, the widths are the real ones."""

from adcore.testing import ModelConformance

SHORT = {
    "target_layers": (0, 1),
    "decoder_depth": 2,
    "encoder_groups": ((0,), (1,)),
    "decoder_groups": ((0,), (1,)),
}


class DinomalyConformance(ModelConformance):
    image_size = 56
    overrides = SHORT


class TestDinomalySmall224(DinomalyConformance):
    model = "dinomaly-small-224"


class TestDinomalySmall392(DinomalyConformance):
    model = "dinomaly-small-392"


class TestDinomalySmall448(DinomalyConformance):
    model = "dinomaly-small-448"


class TestDinomalyBase224(DinomalyConformance):
    model = "dinomaly-base-224"


class TestDinomalyBase392(DinomalyConformance):
    model = "dinomaly-base-392"


class TestDinomalyBase448(DinomalyConformance):
    model = "dinomaly-base-448"


class TestDinomalyLarge224(DinomalyConformance):
    model = "dinomaly-large-224"


class TestDinomalyLarge392(DinomalyConformance):
    model = "dinomaly-large-392"


class TestDinomalyLarge448(DinomalyConformance):
    model = "dinomaly-large-448"
