"""Every card passes the conformance kit, at a small image size with random weights."""

from typing import ClassVar

from adcore.testing import BatchConformance, ModelConformance


class TestPadimResnet18(ModelConformance):
    model = "padim-resnet18"


class TestPadimLite0(ModelConformance):
    model = "padim-efficientnet-lite0"


class TestPadim(ModelConformance):
    model = "padim"
    repeats = "padim-resnet18"
    overrides = {"n_features": 20}  # noqa: RUF012 (550 features of a wide network would take 300 MB here)
    epochs = 1


class TestPatchcoreResnet18(ModelConformance):
    model = "patchcore-resnet18"


class TestPatchcoreLite0(ModelConformance):
    model = "patchcore-efficientnet-lite0"


class TestPatchcore(ModelConformance):
    model = "patchcore"
    repeats = "patchcore-resnet18"
    epochs = 1


class TestDfkde(ModelConformance):
    model = "dfkde"
    repeats = "dfkde-efficientnet-lite0"


class TestDfkdeLite0(ModelConformance):
    model = "dfkde-efficientnet-lite0"


class TestDfm(ModelConformance):
    model = "dfm"
    image_size = 128  # two by two pooled features, so that it can differ which part of an image counts
    repeats = "dfm-efficientnet-lite0"


class TestDfmNll(ModelConformance):
    model = "dfm-nll"


class TestDfmLite0(ModelConformance):
    model = "dfm-efficientnet-lite0"
    image_size = 128


class TestCfa(ModelConformance):
    model = "cfa"
    repeats = "cfa-resnet18"
    epochs = 1


class TestCfaResnet18(ModelConformance):
    model = "cfa-resnet18"


class TestCfaLite0(ModelConformance):
    model = "cfa-efficientnet-lite0"


class TestSoftPatch(ModelConformance):
    model = "softpatch"
    repeats = "softpatch-efficientnet-lite0"


class TestSoftPatchLite0(ModelConformance):
    model = "softpatch-efficientnet-lite0"


class TestSubspaceAD(ModelConformance):
    model = "subspace-ad"
    image_size = 56
    overrides: ClassVar = {"backbone": "dinov2reg_vit_small_14", "layers": ("block0", "block1"), "views": 2}


class TestSubspaceADLite0(ModelConformance):
    model = "subspace-ad-efficientnet-lite0"
    overrides: ClassVar = {"views": 2}


class TestAnomalyDINO(ModelConformance):
    model = "anomaly-dino"
    image_size = 56
    overrides: ClassVar = {"layers": ("block1",), "views": 2}


class TestAnomalyDINOLite0(ModelConformance):
    model = "anomaly-dino-efficientnet-lite0"
    overrides: ClassVar = {"views": 2}


class TestRAD(ModelConformance):
    model = "rad"
    image_size = 56
    overrides: ClassVar = {"backbone": "dinov2_vit_small_14", "layers": ("block0", "block1")}


class TestRADLite0(ModelConformance):
    model = "rad-efficientnet-lite0"


class TestMuSc(BatchConformance):
    model = "musc"
    image_size = 56
    images = 3
    overrides: ClassVar = {  # with random weights all class tokens are alike, and rounding would choose the neighbours
        "backbone": "dinov2_vit_small_14",
        "layers": ("block0", "block1"),
        "neighbours": (3,),
    }


class TestMuScLite0(BatchConformance):
    model = "musc-efficientnet-lite0"


class TestSuperADD(ModelConformance):
    model = "superadd"
    image_size = 84
    overrides: ClassVar = {"backbone": "dinov2_vit_small_14", "layers": ("block0", "block1"), "crop": 56, "overlap": 14}


class TestSuperADDLite0(ModelConformance):
    model = "superadd-efficientnet-lite0"
    overrides: ClassVar = {"crop": 48, "overlap": 16}
