"""What adm-memory registers: cards only, no torch."""

from adcore.cards import ModelCard
from adcore.hookspecs import hookimpl

_PADIM = {
    "licence": "Apache-2.0",
    "training": "one-pass",
    "cost": "light",
    "target": "adm_memory.padim:PaDiM",
    "no_tiles": "it learns each position of the whole image on its own, and a tile lies elsewhere",
    "family": "memory",
    "title": "PaDiM",
    "paper": "Defard et al., PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection, ICPR 2021",
    "year": 2021,
    "summary": "One Gaussian of pretrained features at each image position; the score is the Mahalanobis distance.",
    "epochs": 1,
    "published": "97.9 / 97.5",
}
_PATCHCORE = {
    "licence": "Apache-2.0",
    "training": "one-pass",
    "cost": "light",
    "target": "adm_memory.patchcore:PatchCore",
    "spellings": {"coreset_sampling_ratio": "coreset_ratio"},
    "family": "memory",
    "title": "PatchCore",
    "paper": "Roth et al., Towards Total Recall in Industrial Anomaly Detection, CVPR 2022",
    "year": 2022,
    "summary": "A coreset of normal patch features; the score is the distance to the nearest of them.",
    "epochs": 1,
    "published": "99.2 / 98.1",
}
_SOFTPATCH = {
    "licence": "Apache-2.0",
    "training": "one-pass",
    "unlabelled": True,
    "cost": "light",
    "target": "adm_memory.softpatch:SoftPatch",
    "spellings": {"coreset_sampling_ratio": "coreset_ratio"},
    "family": "memory",
    "title": "SoftPatch",
    "paper": "Jiang et al., SoftPatch: Unsupervised Anomaly Detection with Noisy Data, NeurIPS 2022",
    "year": 2022,
    "summary": "PatchCore whose bank leaves out patches that are outliers at their position, and distrusts the rest by degree.",
    "epochs": 1,
}
_SUBSPACE = {
    "licence": "Apache-2.0",
    "training": "one-pass",
    "target": "adm_memory.subspace_ad:SubspaceAD",
    "family": "memory",
    "title": "SubspaceAD",
    "paper": "SubspaceAD: Training-Free Few-Shot Anomaly Detection via Subspace Modeling, arXiv 2602.23013, 2026",
    "year": 2026,
    "summary": "A PCA of a vision transformer's patch tokens; the score is the residual outside of its subspace.",
    "epochs": 1,
    "batch_size": 1,
}
_ANOMALY_DINO = {
    "licence": "Apache-2.0",
    "training": "one-pass",
    "target": "adm_memory.anomaly_dino:AnomalyDINO",
    "spellings": {"coreset_sampling_ratio": "coreset_ratio", "coreset_subsampling": "coreset_ratio"},
    "family": "memory",
    "title": "AnomalyDINO",
    "paper": "Damm et al., AnomalyDINO: Boosting Patch-based Few-shot Anomaly Detection with DINOv2, WACV 2025",
    "year": 2025,
    "summary": "A bank of DINOv2's patch tokens of a few images; the score is the cosine distance to the nearest of them.",
    "epochs": 1,
    "batch_size": 1,
}
_RAD = {
    "licence": "Apache-2.0",
    "training": "one-pass",
    "target": "adm_memory.rad:RAD",
    "no_tiles": "it learns each position of the whole image on its own, and a tile lies elsewhere",
    "family": "memory",
    "title": "RAD",
    "paper": "Zhang et al., Is Training Necessary for Anomaly Detection?, arXiv 2601.22763, 2026",
    "year": 2026,
    "summary": "Patch tokens of several layers; the score is the cosine distance to the nearest token around the same place, "
    "in the training images that look most alike.",
    "epochs": 1,
    "batch_size": 1,
}
_MUSC = {
    "licence": "Apache-2.0",
    "training": "none",
    "cost": "heavy",
    "target": "adm_memory.musc:MuSc",
    "no_tiles": "it compares whole images with one another",
    "family": "memory",
    "title": "MuSc",
    "paper": "Li et al., MuSc: Zero-Shot Industrial Anomaly Classification and Segmentation with Mutual Scoring of the "
    "Unlabeled Images, ICLR 2024",
    "year": 2024,
    "summary": "Unlabelled images of one folder score one another: what has no like in most others is odd. Nothing is trained.",
    "not_exportable": "it scores the images of a folder together, and has no score for one alone",
    "epochs": 1,
    "batch_size": 1,
}
_SUPERADD = {
    "licence": "Apache-2.0",
    "training": "one-pass",
    "target": "adm_memory.superadd:SuperADD",
    "spellings": {
        "patch_size": "crop",
        "patch_overlap": "overlap",
        "score_quantile": "top",
        "coreset_sampling_ratio": "coreset_ratio",
    },
    "family": "memory",
    "title": "SuperADD",
    "paper": "SuperADD, arXiv 2605.14808, 2026",
    "year": 2026,
    "summary": "Overlapping crops and brighter and darker training images; the score is the distance to the nearest patch of "
    "each of several layers.",
    "epochs": 1,
    "batch_size": 1,
}
_DFM = {
    "licence": "Apache-2.0",
    "training": "one-pass",
    "cost": "light",
    "target": "adm_memory.dfm:DFM",
    "no_tiles": "it learns each position of the whole image on its own, and a tile lies elsewhere",
    "family": "adaptation",
    "title": "DFM",
    "paper": "Ahuja et al., Probabilistic Modeling of Deep Features for Out-of-Distribution and Adversarial Detection, "
    "NeurIPS workshop on Bayesian Deep Learning 2019",
    "year": 2019,
    "epochs": 1,
    "batch_size": 16,
}
_FRE = "The principal subspace of one layer's features; the score is the error with which it reconstructs them."
_DFKDE = {
    "licence": "Apache-2.0",
    "training": "one-pass",
    "cost": "light",
    "target": "adm_memory.dfkde:DFKDE",
    "no_tiles": "it describes an image as a whole",
    "family": "memory",
    "title": "DFKDE",
    "whole_image": "it describes an image as a whole, with black outside of the region",
    "paper": "Akcay et al., Anomalib: A Deep Learning Library for Anomaly Detection, ICIP 2022 (no paper of its own)",
    "year": 2022,
    "summary": "Kernel density of pooled features in a few principal components; scores images, without a map.",
    "epochs": 1,
    "batch_size": 8,
}
_CFA = {
    "licence": "Apache-2.0",
    "target": "adm_memory.cfa:CFA",
    "family": "adaptation",
    "title": "CFA",
    "paper": "Lee et al., CFA: Coupled-Hypersphere-Based Feature Adaptation for Target-Oriented Anomaly Localization, "
    "IEEE Access 2022",
    "year": 2022,
    "summary": "A trained convolution draws patch features into small spheres around a bank of average normal ones.",
    "epochs": 20,
    "batch_size": 16,
    "published": "99.5 / 98.5",
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
        ModelCard(name="softpatch", config={"backbone": "wide_resnet50_2"}, batch_size=8, **_SOFTPATCH),
        ModelCard(
            name="softpatch-efficientnet-lite0",
            config={"backbone": "tf_efficientnet_lite0", "layers": ("stride8", "stride16")},
            batch_size=16,
            **_SOFTPATCH,
        ),
        ModelCard(
            name="subspace-ad",
            config={"backbone": "dinov2reg_vit_base_14"},
            image_size=672,
            size_multiple=14,
            **_SUBSPACE,
        ),
        ModelCard(
            name="subspace-ad-efficientnet-lite0",
            config={"backbone": "tf_efficientnet_lite0", "layers": ("stride8", "stride16")},
            cost="light",
            **_SUBSPACE,
        ),
        ModelCard(
            name="anomaly-dino",
            aliases=("anomalydino",),
            config={"backbone": "dinov2_vit_small_14"},
            image_size=448,
            size_multiple=14,
            **_ANOMALY_DINO,
        ),
        ModelCard(
            name="anomaly-dino-efficientnet-lite0",
            config={"backbone": "tf_efficientnet_lite0", "layers": ("stride8", "stride16")},
            cost="light",
            **_ANOMALY_DINO,
        ),
        ModelCard(
            name="rad",
            config={"backbone": "dinov2_vit_base_14"},
            image_size=448,
            size_multiple=14,
            published="- / 98.5 (multi-class, DINOv3 base)",
            **_RAD,
        ),
        ModelCard(
            name="rad-efficientnet-lite0",
            config={"backbone": "tf_efficientnet_lite0", "layers": ("stride8", "stride16")},
            cost="light",
            **_RAD,
        ),
        ModelCard(
            name="musc",
            config={"backbone": "dinov2_vit_base_14"},
            image_size=448,
            size_multiple=14,
            published="97.8 / 97.3 (CLIP ViT-L/14)",
            **_MUSC,
        ),
        ModelCard(
            name="musc-efficientnet-lite0",
            config={"backbone": "tf_efficientnet_lite0", "layers": ("stride8", "stride16")},
            **_MUSC,
        ),
        ModelCard(
            name="superadd",
            config={"backbone": "dinov2_vit_base_14"},
            image_size=448,
            size_multiple=14,
            **_SUPERADD,
        ),
        ModelCard(
            name="superadd-efficientnet-lite0",
            config={
                "backbone": "tf_efficientnet_lite0",
                "layers": ("stride8", "stride16"),
                "crop": 128,
                "overlap": 32,
            },
            size_multiple=16,
            cost="light",
            **_SUPERADD,
        ),
        ModelCard(name="dfkde", config={"backbone": "resnet50"}, **_DFKDE),
        ModelCard(
            name="dfkde-efficientnet-lite0",
            config={"backbone": "tf_efficientnet_lite0", "layer": "stride32"},
            **_DFKDE,
        ),
        ModelCard(name="dfm", config={"backbone": "resnet50"}, summary=_FRE, **_DFM),
        ModelCard(
            name="dfm-nll",
            config={"backbone": "resnet50", "score": "nll"},
            whole_image="it describes an image as a whole, with black outside of the region",
            summary="A Gaussian in the principal subspace of one layer's features; the score is its negative "
            "log-likelihood, without a map.",
            **_DFM,
        ),
        ModelCard(
            name="dfm-efficientnet-lite0",
            config={"backbone": "tf_efficientnet_lite0", "layer": "stride16"},
            summary=_FRE,
            **_DFM,
        ),
        ModelCard(name="cfa", config={"backbone": "wide_resnet50_2"}, **_CFA),
        ModelCard(name="cfa-resnet18", config={"backbone": "resnet18"}, **_CFA),
        ModelCard(
            name="cfa-efficientnet-lite0",
            config={"backbone": "tf_efficientnet_lite0", "layers": ("stride4", "stride8", "stride16")},
            **_CFA,
        ),
    ]
