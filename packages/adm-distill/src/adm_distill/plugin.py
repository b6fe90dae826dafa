"""What adm-distill registers: cards only, no torch."""

from adcore.cards import ModelCard
from adcore.hookspecs import hookimpl

_LITE0 = {"backbone": "tf_efficientnet_lite0", "layers": ("stride4", "stride8", "stride16")}
_STFPM = {
    "target": "adm_distill.stfpm:STFPM",
    "family": "distillation",
    "title": "STFPM",
    "paper": "Wang et al., Student-Teacher Feature Pyramid Matching for Anomaly Detection, BMVC 2021",
    "year": 2021,
    "summary": "A student repeats a pretrained teacher's features on normal images; the score is where they differ.",
    "epochs": 50,
    "batch_size": 16,
    "published": "95.5 / 97.0",
}


@hookimpl
def adcore_register_models() -> list[ModelCard]:
    return [
        ModelCard(name="stfpm", config={"backbone": "resnet50"}, **_STFPM),
        ModelCard(name="stfpm-resnet18", config={"backbone": "resnet18"}, **_STFPM),
        ModelCard(name="stfpm-efficientnet-lite0", config=_LITE0, **_STFPM),
    ]
