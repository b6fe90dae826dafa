"""What adm-foundation registers: cards only, no torch."""

from adcore.cards import ModelCard
from adcore.hookspecs import hookimpl

_DINOMALY = {
    "licence": "Apache-2.0",
    "cost": "heavy",
    "size_multiple": 14,
    "target": "adm_foundation.dinomaly:Dinomaly",
    "family": "foundation",
    "paper": "Guo et al., Dinomaly: The Less Is More Philosophy in Multi-Class Unsupervised Anomaly Detection, CVPR 2025",
    "year": 2025,
}
_PAPER_SIZE = {"epochs": 10, "batch_size": 16, "image_size": 448, "crop_size": 392}
_SUMMARY = "A noisy bottleneck and a linear-attention decoder reconstruct groups of DINOv2 layers."
_LARGE_LAYERS = (4, 6, 8, 10, 12, 14, 16, 18)
_SUPERSIMPLENET = {
    "licence": "Apache-2.0",
    "target": "adm_foundation.supersimplenet:SuperSimpleNet",
    "family": "foundation",
    "title": "SuperSimpleNet",
    "whole_image": "its classification head sees the image as a whole, with black outside of the region",
    "paper": "Rolih et al., SuperSimpleNet: Unifying Unsupervised and Supervised Learning for Fast and Reliable Surface "
    "Defect Detection, ICPR 2024",
    "year": 2024,
    "epochs": 50,
    "batch_size": 16,
}
_SUPERSIMPLENET_SUMMARY = "Two small heads on frozen features learn to see noise that was added to those features."
_UNINET = {
    "licence": "Apache-2.0",
    "cost": "heavy",
    "target": "adm_foundation.uninet:UniNet",
    "size_multiple": 32,
    "family": "foundation",
    "title": "UniNet",
    "paper": "Wei et al., UniNet: A Contrastive Learning-guided Unified Framework with Feature Selection for Anomaly "
    "Detection, CVPR 2025",
    "year": 2025,
    "summary": "A student restores what a fixed and an adapting teacher see, each from the other one's features.",
    "epochs": 20,
    "batch_size": 4,
}
_LITE0 = "tf_efficientnet_lite0"
_BATCH_SIZES = {
    "small": {224: 32, 392: 24, 448: 16},
    "base": {224: 16, 392: 12, 448: 8},
    "large": {224: 8, 392: 6, 448: 4},
}


def _dinomaly(size: str, image_size: int, batch_size: int) -> ModelCard:
    config = {"backbone": f"dinov2_vit_{size}_14"}
    return ModelCard(
        name=f"dinomaly-{size}-{image_size}",
        aliases=("dinomaly",) if (size, image_size) == ("base", 392) else (),
        config=config | ({"target_layers": _LARGE_LAYERS} if size == "large" else {}),
        epochs=15 if image_size == 224 else 10,
        batch_size=batch_size,
        image_size=image_size,
        title="Dinomaly",
        summary=_SUMMARY,
        **_DINOMALY,
    )


def _cropped(name: str, title: str, summary: str, published: str = "", **config: object) -> ModelCard:
    """Images of the paper's size: 448, cropped to 392."""
    return ModelCard(
        name=name,
        title=title,
        config={"backbone": "dinov2_vit_base_14", **config},
        summary=summary,
        published=published,
        **_PAPER_SIZE,
        **_DINOMALY,
    )


def _variant(kind: str, summary: str, **config: object) -> ModelCard:
    """A variant of this project: the paper is the plain method's, the accuracy published there is not the variant's."""
    return _cropped(f"dinomaly-{kind.lower()}", f"Dinomaly {kind}", summary, **config)


def _with_registers(size: str, published: str = "") -> ModelCard:
    layers = {"target_layers": _LARGE_LAYERS} if size == "large" else {}
    summary = "Dinomaly on DINOv2 with register tokens, which take artefacts out of the feature maps."
    backbone = {"backbone": f"dinov2reg_vit_{size}_14"}
    return _cropped(f"dinomaly-reg-{size}", "Dinomaly", summary, published, **backbone, **layers)


@hookimpl
def adcore_register_models() -> list[ModelCard]:
    sizes = [
        _dinomaly(size, image_size, batch_size)
        for size, batches in _BATCH_SIZES.items()
        for image_size, batch_size in batches.items()
    ]
    return [
        *sizes,
        _with_registers("small"),
        _with_registers("base", published="99.6 / 98.4 (multi-class)"),
        _with_registers("large"),
        ModelCard(
            name="dinomaly2",
            aliases=("dinomaly-2",),
            config={
                "backbone": "dinov2reg_vit_base_14",
                "recentred": True,
                "bottleneck_width": 256,
                "bottleneck_dropout": 0.4,
            },
            **_PAPER_SIZE
            | _DINOMALY
            | {
                "title": "Dinomaly2",
                "paper": "Guo et al., One Dinomaly2 Detect Them All: A Unified Framework for Full-Spectrum Unsupervised "
                "Anomaly Detection, arXiv 2510.17611, 2025",
                "summary": "Dinomaly that compares patches as they differ from the image's class token.",
                "published": "99.9 (multi-class, image)",
            },
        ),
        ModelCard(
            name="inp-former",
            config={"backbone": "dinov2reg_vit_base_14"},
            **_PAPER_SIZE
            | _DINOMALY
            | {
                "target": "adm_foundation.inp_former:InpFormer",
                "title": "INP-Former",
                "paper": "Luo et al., Exploring Intrinsic Normal Prototypes within a Single Image for Universal Anomaly "
                "Detection, CVPR 2025",
                "summary": "A decoder reconstructs an image's patches from a few prototypes of that image alone.",
                "published": "99.7 / 98.5 (multi-class)",
            },
        ),
        _cropped("dinomaly-baseline", "Dinomaly", "Dinomaly in the setting of its variants, to compare them with."),
        _variant(
            "GEM",
            "Dinomaly whose groups are joined by a generalised mean, in training and in the map.",
            objective="gem",
            gem_p=3.0,
            mining_factor=0.3,
        ),
        _variant(
            "Focal",
            "Dinomaly whose loss weights each location by its own distance instead of hard mining.",
            objective="focal",
            focal_gamma=2.0,
        ),
        _variant(
            "Aux",
            "Dinomaly with a second head that tells encoder features from noisy copies.",
            auxiliary_weight=0.1,
        ),
        _variant(
            "Scale",
            "Dinomaly that learns how much each group of layers counts in the map.",
            objective="scale",
            scale_weight=0.01,
        ),
        ModelCard(
            name="supersimplenet",
            config={"backbone": "wide_resnet50_2"},
            summary=_SUPERSIMPLENET_SUMMARY,
            published="98.4 / 97.5",
            **_SUPERSIMPLENET,
        ),
        ModelCard(
            name="supersimplenet-supervised",
            config={"backbone": "wide_resnet50_2", "supervised": True, "stop_gradient": False},
            summary="SuperSimpleNet that learns from labelled anomalies and their masks as well.",
            needs=("labelled anomalies, with masks where there are any",),
            supervised=True,
            **_SUPERSIMPLENET,
        ),
        ModelCard(
            name="supersimplenet-efficientnet-lite0",
            # The noise is half the spread of its features: in tens of epochs the heads do not learn to see less.
            config={"backbone": _LITE0, "layers": ("stride8", "stride16"), "noise_std": 2.5},
            summary=_SUPERSIMPLENET_SUMMARY,
            **_SUPERSIMPLENET,
        ),
        ModelCard(name="uninet", config={"backbone": "wide_resnet50_2"}, published="99.9 (image)", **_UNINET),
        ModelCard(
            name="uninet-efficientnet-lite0",
            config={"backbone": _LITE0, "layers": ("stride4", "stride8", "stride16")},
            **_UNINET,
        ),
    ]
