"""Facts: how the peer's parameter names become canonical names, and what is never filled, for each model."""

EXTRACTOR = (r"^feature_extractor\.feature_extractor\.", "backbone.")  # timm's own names follow

RENAMES: dict[str, list[tuple[str, str]]] = {
    "patchcore": [EXTRACTOR],
    "padim": [EXTRACTOR],
    "stfpm": [(r"^(teacher|student)_model\.feature_extractor\.", r"\1.")],
    "fastflow": [(r"^feature_extractor\.", "backbone."), (r"^fast_flow_blocks\.(\d+)\.module_list\.", r"flows.\1.")],
}

# computed constants and fitted statistics: both sides make these themselves
KEEP = r"(blur\.kernel|downsample_kernel|memory_bank|^idx|gaussian\.|_is_fitted|is_fitted)"
