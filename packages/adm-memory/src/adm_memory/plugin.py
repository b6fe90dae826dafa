"""What adm-memory registers: cards only, no torch."""

from adcore.cards import ModelCard
from adcore.hookspecs import hookimpl

_PADIM = {
    "target": "adm_memory.padim:PaDiM",
    "family": "memory",
    "title": "PaDiM",
    "paper": "Defard et al., PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection, ICPR 2021",
    "year": 2021,
    "summary": "One Gaussian of pretrained features at each image position; the score is the Mahalanobis distance.",
    "epochs": 1,
    "published": "97.9 / 97.5",
}
_PATCHCORE = {
    "target": "adm_memory.patchcore:PatchCore",
    "family": "memory",
    "title": "PatchCore",
    "paper": "Roth et al., Towards Total Recall in Industrial Anomaly Detection, CVPR 2022",
    "year": 2022,
    "summary": "A coreset of normal patch features; the score is the distance to the nearest of them.",
    "epochs": 1,
    "published": "99.2 / 98.1",
}


@hookimpl
def adcore_register_models() -> list[ModelCard]:
    return [
        ModelCard(name="padim", config={"backbone": "wide_resnet50_2"}, batch_size=4, **_PADIM),
        ModelCard(name="padim-resnet18", config={"backbone": "resnet18"}, batch_size=8, **_PADIM),
        ModelCard(
            name="padim-efficientnet-lite0",
            config={"backbone": "tf_efficientnet_lite0", "layers": ("stride4", "stride8", "stride16")},
            batch_size=8,
            **_PADIM,
        ),
        ModelCard(name="patchcore", config={"backbone": "wide_resnet50_2"}, batch_size=8, **_PATCHCORE),
        ModelCard(name="patchcore-resnet18", config={"backbone": "resnet18"}, batch_size=16, **_PATCHCORE),
        ModelCard(
            name="patchcore-efficientnet-lite0",
            config={"backbone": "tf_efficientnet_lite0", "layers": ("stride8", "stride16")},
            batch_size=16,
            **_PATCHCORE,
        ),
    ]
