"""What adm-flow registers: its model cards, as plain data."""

from adcore.cards import ModelCard
from adcore.hookspecs import hookimpl

_LAYERS = ("layer1", "layer2", "layer3")
_LITE0 = {"backbone": "tf_efficientnet_lite0", "layers": ("stride4", "stride8", "stride16")}
_TRANSFORMER = {"flow_steps": 20, "conv3x3_only": True, "hidden_ratio": 0.16}

_FASTFLOW = {
    "licence": "Apache-2.0",
    "target": "adm_flow.fastflow:FastFlow",
    "family": "flow",
    "title": "FastFlow",
    "paper": "Yu et al., FastFlow: Unsupervised Anomaly Detection and Localization via 2D Normalizing Flows, arXiv 2021",
    "year": 2021,
    "summary": "Normalising flows that keep the map's geometry give the likelihood of every feature of a frozen backbone.",
    "epochs": 20,
    "published": "99.4 / 98.5",
}

MODELS = [
    ModelCard(
        name="fastflow",
        aliases=("fastflow-wide-resnet50",),
        config={"backbone": "wide_resnet50_2", "layers": _LAYERS},
        **_FASTFLOW,
    ),
    *(
        ModelCard(name=f"fastflow-{backbone}", config={"backbone": backbone, "layers": _LAYERS}, **_FASTFLOW)
        for backbone in ("resnet18", "resnet50")
    ),
    ModelCard(name="fastflow-efficientnet-lite0", config=_LITE0, **_FASTFLOW),
    ModelCard(
        name="fastflow-cait",
        config={"backbone": "cait_m48_448", "layers": ("blocks.40",), **_TRANSFORMER},
        image_size=448,
        size_multiple=16,
        cost="heavy",
        batch_size=4,
        **{**_FASTFLOW, "epochs": 5},
    ),
    ModelCard(
        name="fastflow-deit",
        config={"backbone": "deit_base_distilled_patch16_384", "layers": ("blocks.7",), **_TRANSFORMER},
        image_size=384,
        size_multiple=16,
        cost="heavy",
        **{**_FASTFLOW, "epochs": 10},
    ),
]

_CFLOW = {
    "licence": "Apache-2.0",
    "target": "adm_flow.cflow:CFlow",
    "family": "flow",
    "title": "CFLOW-AD",
    "paper": "Gudovskiy et al., CFLOW-AD: Real-Time Unsupervised Anomaly Detection with Localization via Conditional "
    "Normalizing Flows, WACV 2022",
    "year": 2022,
    "summary": "Normalising flows give the likelihood of each feature vector, conditioned on its position in the image.",
    "epochs": 10,
    "batch_size": 4,
    "published": "98.3 / 98.6",
}

MODELS += [
    ModelCard(
        name="cflow-resnet18",
        aliases=("cflow",),
        config={"backbone": "resnet18", "layers": ("layer2", "layer3")},
        **_CFLOW,
    ),
    ModelCard(name="cflow-resnet50", config={"backbone": "resnet50", "layers": ("layer2", "layer3")}, **_CFLOW),
    ModelCard(
        name="cflow-efficientnet-lite0",
        config={"backbone": "tf_efficientnet_lite0", "layers": ("stride8", "stride16")},
        **_CFLOW,
    ),
]

_UFLOW = {
    "licence": "Apache-2.0",
    "target": "adm_flow.uflow:UFlow",
    "family": "flow",
    "title": "U-Flow",
    "paper": "Tailanian, Pardo, Musé, U-Flow: A U-shaped Normalizing Flow for Anomaly Detection with Unsupervised "
    "Threshold, Journal of Mathematical Imaging and Vision 2024",
    "year": 2024,
    "summary": "One U-shaped flow over the scales of a backbone; its white latent space gives a threshold without anomalies.",
    "epochs": 10,
    "published": "- / 98.7",
}

MODELS += [
    ModelCard(name="uflow", config={"backbone": "wide_resnet50_2", "layers": _LAYERS}, size_multiple=16, **_UFLOW),
    ModelCard(name="uflow-resnet18", config={"backbone": "resnet18", "layers": _LAYERS}, size_multiple=16, **_UFLOW),
    ModelCard(name="uflow-efficientnet-lite0", config=_LITE0, size_multiple=16, **_UFLOW),
    ModelCard(
        name="uflow-mcait",
        config={"backbone": "mcait", "layers": ("blocks.40", "blocks.20")},
        backbones=("cait_m48_448", "cait_s24_224"),
        batch_size=4,
        image_size=448,
        size_multiple=32,
        cost="heavy",
        **_UFLOW,
    ),
]

_CSFLOW = {
    "licence": "Apache-2.0",
    "target": "adm_flow.csflow:CSFlow",
    "family": "flow",
    "title": "CS-Flow",
    "paper": "Rudolph et al., Fully Convolutional Cross-Scale-Flows for Image-based Defect Detection, WACV 2022",
    "year": 2022,
    "summary": "One flow over the features of an image at three sizes, its couplings read all of them.",
    "epochs": 10,
    "published": "98.7 / -",
}

MODELS += [
    ModelCard(name="csflow", config={"backbone": "efficientnet_b5", "layer": "blocks.5"}, size_multiple=128, **_CSFLOW),
    ModelCard(
        name="csflow-efficientnet-lite0",
        # stride 16, where B5 has 32; narrower subnets for fewer channels (112 against 304)
        config={"backbone": "tf_efficientnet_lite0", "layer": "blocks.4", "cross_conv_channels": 256},
        size_multiple=64,
        **_CSFLOW,
    ),
]


@hookimpl
def adcore_register_models() -> list[ModelCard]:
    return MODELS
