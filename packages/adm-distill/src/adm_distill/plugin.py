"""What adm-distill registers: cards only, no torch."""

from adcore.cards import BackboneCard, ModelCard
from adcore.hookspecs import hookimpl

_TEACHERS = (
    "https://github.com/open-edge-platform/anomalib/releases/download/efficientad_pretrained_weights/"
    "efficientad_pretrained_weights.zip"
)
_LITE0 = {"backbone": "tf_efficientnet_lite0", "layers": ("stride4", "stride8", "stride16")}
_STFPM = {
    "licence": "Apache-2.0",
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
_EFFICIENTAD = {
    "spellings": {"imagenet_dir": "penalty_images", "model_size": "size"},
    "licence": "Apache-2.0",
    "target": "adm_distill.efficientad:EfficientAD",
    "family": "distillation",
    "title": "EfficientAD",
    "paper": "Batzner, Heckler, König, EfficientAD: Accurate Visual Anomaly Detection at Millisecond-Level Latencies, "
    "WACV 2024",
    "year": 2024,
    "summary": "A student and an autoencoder repeat a tiny distilled teacher; local and logical anomalies are where they fail.",
    "epochs": 20,
    "batch_size": 1,
    "normalization": "none",
}
_FRE = {
    "licence": "Apache-2.0",
    "target": "adm_distill.fre:FRE",
    "family": "distillation",
    "title": "FRE",
    "no_tiles": "it learns each position of the whole image on its own, and a tile lies elsewhere",
    "paper": "Ndiour et al., FRE: A Fast Method For Anomaly Detection And Segmentation, BMVC 2023",
    "year": 2023,
    "summary": "A linear tied autoencoder repeats the features of normal images; the score is the reconstruction error.",
    "epochs": 50,
    "batch_size": 16,
}
_REVERSE = {
    "licence": "Apache-2.0",
    "target": "adm_distill.reverse_distillation:ReverseDistillation",
    "spellings": {"anomaly_map_mode": "anomaly_map"},
    "size_multiple": 32,
    "family": "distillation",
    "title": "Reverse Distillation",
    "paper": "Deng and Li, Anomaly Detection via Reverse Distillation from One-Class Embedding, CVPR 2022",
    "year": 2022,
    "summary": "A decoder restores the teacher's features from a code too small to carry anything that is not normal.",
    "epochs": 50,
    "batch_size": 8,
    "published": "98.5 / 97.8",
}


_EFFICIENTAD_NEEDS = (
    "instead of the teacher's weights: natural images and a backbone to distil one (teacher=distill)",
    "folder of natural images as penalty (recommended: penalty_images)",
)


def _teacher(size: str, size_mb: int) -> BackboneCard:
    file = f"pretrained_teacher_{size}.pth"
    return BackboneCard(
        name=f"efficientad_teacher_{size}",
        architecture=f"patch_description_network_{size}",
        target="adm_distill.pdn:PatchDescriptionNetwork",
        options={"size": size},
        filenames=(file, f"efficientad_pretrained_weights/{file}", f"efficientad/{file}"),
        source=f"{_TEACHERS} (it holds {file})",
        licence="Apache-2.0 (anomalib), distilled on ImageNet",
        size_mb=size_mb,
        key_order=True,  # the published files name their layers otherwise
    )


@hookimpl
def adcore_register_models() -> list[ModelCard]:
    return [
        ModelCard(name="stfpm", config={"backbone": "resnet50"}, **_STFPM),
        ModelCard(name="stfpm-resnet18", config={"backbone": "resnet18"}, **_STFPM),
        ModelCard(name="stfpm-efficientnet-lite0", config=_LITE0, **_STFPM),
        ModelCard(
            name="efficientad-small",
            aliases=("efficientad-s",),
            config={"size": "small"},
            backbones=("efficientad_teacher_small",),
            needs=_EFFICIENTAD_NEEDS,
            published="98.8 / -",
            **_EFFICIENTAD,
        ),
        ModelCard(
            name="efficientad-medium",
            aliases=("efficientad",),
            config={"size": "medium"},
            backbones=("efficientad_teacher_medium",),
            needs=_EFFICIENTAD_NEEDS,
            published="99.1 / -",
            **_EFFICIENTAD,
        ),
        ModelCard(name="fre", config={"backbone": "resnet50"}, **_FRE),
        ModelCard(
            name="fre-efficientnet-lite0", config={"backbone": "tf_efficientnet_lite0", "layer": "stride16"}, **_FRE
        ),
        ModelCard(name="reverse-distillation", config={"backbone": "wide_resnet50_2"}, **_REVERSE),
        ModelCard(name="reverse-distillation-resnet18", config={"backbone": "resnet18"}, **_REVERSE),
        ModelCard(name="reverse-distillation-efficientnet-lite0", config=_LITE0, **_REVERSE),
    ]


@hookimpl
def adcore_register_backbones() -> list[BackboneCard]:
    return [_teacher("small", 11), _teacher("medium", 32)]
