"""How each of the peer's models is built for a comparison, and which of its phases are timed."""

import ast
import functools
import time
from collections import Counter
from importlib.metadata import version

import anomalib.models
import torch
from anomalib.models.components import KCenterGreedy
from anomalib.pre_processing import PreProcessor
from torchvision.transforms import v2

BACKBONE = "tf_efficientnet_lite0"
STRIDES = {4: "blocks.1", 8: "blocks.2", 16: "blocks.4"}  # timm's module names; 24, 40 and 112 channels

# peer's class, keyword arguments; all on the one backbone that has real weights offline
MODELS = {
    "patchcore": (
        "Patchcore",
        {
            "backbone": BACKBONE,
            "layers": [STRIDES[8], STRIDES[16]],
            "coreset_sampling_ratio": 0.1,
            "num_neighbors": 9,
        },
    ),
    "padim": ("Padim", {"backbone": BACKBONE, "layers": list(STRIDES.values()), "n_features": 100}),
}
EPOCHS: dict[str, int] = {}


def build(name: str, size: int, overrides: list[str]) -> torch.nn.Module:
    """The peer's model, its outputs raw: no post-processing, no evaluation inside it, no pictures."""
    kind, options = MODELS[name]
    options = dict(options)
    for override in overrides:
        key, value = override.split("=", 1)
        try:
            options[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[key] = value
    transform = v2.Compose([v2.Resize((size, size), antialias=True), v2.Normalize([0.5] * 3, [0.5] * 3)])
    return getattr(anomalib.models, kind)(
        **options,
        pre_processor=PreProcessor(transform=transform),
        post_processor=False,
        evaluator=False,
        visualizer=False,
    )


def time_phases() -> Counter:
    """Seconds spent in the coreset selection, counted from outside; the returned counter fills while the model fits."""
    seconds: Counter = Counter()
    select = KCenterGreedy.select_coreset_idxs

    @functools.wraps(select)
    def timed(self, *args, **kwargs):
        started = time.perf_counter()
        result = select(self, *args, **kwargs)
        seconds["coreset"] += time.perf_counter() - started
        return result

    KCenterGreedy.select_coreset_idxs = timed
    return seconds


def memory_shape(model: torch.nn.Module) -> dict[str, list[int]]:
    """Shapes of the buffers of a one-pass model, as a check that both sides kept equally much."""
    wanted = ("memory_bank", "mean", "inv_covariance")
    return {name: list(value.shape) for name, value in model.named_buffers() if name.split(".")[-1] in wanted}


def versions() -> dict[str, str]:
    return {name: version(name) for name in ("anomalib", "lightning", "torch", "torchvision", "timm")}
