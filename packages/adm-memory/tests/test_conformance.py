"""Every card passes the conformance kit, at a small image size with random weights."""

from adcore.testing import ModelConformance


class TestPadimResnet18(ModelConformance):
    model = "padim-resnet18"


class TestPadimLite0(ModelConformance):
    model = "padim-efficientnet-lite0"


class TestPadim(ModelConformance):
    model = "padim"
    overrides = {"n_features": 20}  # noqa: RUF012 (550 features of a wide network would take 300 MB here)
    epochs = 1


class TestPatchcoreResnet18(ModelConformance):
    model = "patchcore-resnet18"


class TestPatchcoreLite0(ModelConformance):
    model = "patchcore-efficientnet-lite0"


class TestPatchcore(ModelConformance):
    model = "patchcore"
    epochs = 1


class TestDfkde(ModelConformance):
    model = "dfkde"


class TestDfkdeLite0(ModelConformance):
    model = "dfkde-efficientnet-lite0"


class TestDfm(ModelConformance):
    model = "dfm"


class TestDfmNll(ModelConformance):
    model = "dfm-nll"


class TestDfmLite0(ModelConformance):
    model = "dfm-efficientnet-lite0"


class TestCfa(ModelConformance):
    model = "cfa"
    epochs = 1


class TestCfaResnet18(ModelConformance):
    model = "cfa-resnet18"


class TestCfaLite0(ModelConformance):
    model = "cfa-efficientnet-lite0"
