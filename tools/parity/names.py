"""Facts: how the peer's parameter names become canonical names, and what is never filled, for each model."""

EXTRACTOR = (r"^feature_extractor\.feature_extractor\.", "backbone.")  # timm's own names follow
DINOMALY = [(r"^encoder\.feature_extractor\.", "encoder.")]
DRAEM = [
    (r"^reconstructive_subnetwork\.", "reconstructive."),
    (r"^discriminative_subnetwork\.", "discriminative."),
    (r"\.fin_out\.0\.", ".logits."),
]

RENAMES: dict[str, list[tuple[str, str]]] = {
    "patchcore": [EXTRACTOR],
    "padim": [EXTRACTOR],
    "dfkde": [EXTRACTOR],
    "dfm": [EXTRACTOR],
    "dfm_nll": [EXTRACTOR],
    "cfa": [(r"^feature_extractor\.", "backbone."), (r"^descriptor\.layer\.conv2d\.", "descriptor.")],
    "stfpm": [(r"^(teacher|student)_model\.feature_extractor\.", r"\1.")],
    "fastflow": [(r"^feature_extractor\.", "backbone."), (r"^fast_flow_blocks\.(\d+)\.module_list\.", r"flows.\1.")],
    "cflow": [  # "logits" keeps layer2 and the subnets small: the likelihoods would otherwise leave float32
        (r"^encoder\.feature_extractor\.", "backbone."),
        (r"^backbone\.layer2\.", "backbone.logits.layer2."),
        (r"\.module_list\.", "."),
        (r"\.subnet\.", ".subnet.logits."),
    ],
    "fre": [EXTRACTOR, (r"^fre_model\.", "autoencoder.")],
    "reverse_distillation": [(r"^encoder\.feature_extractor\.", "encoder.")],
    "uflow": [
        (r"^feature_extractor\.feature_extractor\.", "backbone."),
        (r"^feature_extractor\.feature_normalizations\.", "norms."),
        (r"\.module_list\.", "."),
    ],
    "csflow": [  # the backbone is there twice, with shared tensors; "logits" keeps its residual sums from growing
        (r"^feature_extractor\.feature_extractor\.backbone\.", "unused."),
        (r"^feature_extractor\.feature_extractor\.feature_extractor\.", "backbone."),
        (r"^backbone\.features\.(\d)\.([1-9])\.", r"backbone.logits.features.\1.\2."),
        (r"^graph\.graph\.module_list\.", "flow."),
    ],
    "efficientad_small": [(r"^ae\.", "autoencoder.")],
    "efficientad_medium": [(r"^ae\.", "autoencoder.")],
    "draem": DRAEM,
    "draem_sspcab": DRAEM,
    "ganomaly": [],
    "dsr": [],
    "supersimplenet": [(r"^feature_extractor\.feature_extractor\.feature_extractor\.", "backbone.")],
    "uninet": [(r"^teachers\.(source|target)_teacher\.", r"\1.")],
    "dinomaly_small": DINOMALY,
    "dinomaly_small_reg": DINOMALY,
    "inp_former": DINOMALY,
    "anomaly_dino": [(r"^feature_encoder\.feature_extractor\.", "encoder.")],
    "superadd": [(r"^(backbone|patch_exec\.model)\.dino\.", "encoder.")],  # there twice, with shared tensors
    "rad": [(r"^feature_extractor\.feature_extractor\.", "encoder.")],
}

# computed constants and fitted statistics: both sides make these themselves
KEEP = (
    r"((blur|smoothing)\.kernel|downsample_kernel|memory_bank|^idx|^classifier\.|pca_model\.|gaussian_model\.|gaussian\."
    r"|_is_fitted|is_fitted|cls_banks|patch_banks|bank_grid)"
)
