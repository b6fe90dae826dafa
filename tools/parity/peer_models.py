"""How each of the peer's models is built for a comparison, and which of its phases are timed."""

import ast
import functools
import sys
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import anomalib.models
import torch
from anomalib.models.components import KCenterGreedy
from anomalib.pre_processing import PreProcessor
from lite0 import ALIAS, give_to_cfa, give_to_csflow, give_to_reverse_distillation, give_to_uninet
from safetensors.torch import load_file
from torchvision.transforms import v2

BACKBONE = "tf_efficientnet_lite0"
TRANSFORMER = "vit_small_patch14_dinov2"
STRIDES = {4: "blocks.1", 8: "blocks.2", 16: "blocks.4"}  # timm's module names; 24, 40 and 112 channels

# The peer's class and keyword arguments, on the one backbone that has real weights offline. Its Reverse Distillation and
# UniNet have decoders for ResNets only and get ours; EfficientAD needs a teacher to download: no comparison there.
# DSR's discrete autoencoder is a download, too; it runs on one of ours (--set vq_weights=FILE, made by run_ours.py).
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
    "dfkde": ("Dfkde", {"backbone": BACKBONE, "layers": ["blocks.6"]}),  # stride 32, 320 channels
    "dfm": ("Dfm", {"backbone": BACKBONE, "layer": STRIDES[16]}),
    "cfa": ("Cfa", {"backbone": ALIAS}),
    "csflow": ("Csflow", {"cross_conv_hidden_channels": 256}),
    "cflow": ("Cflow", {"backbone": BACKBONE, "layers": [STRIDES[8], STRIDES[16]]}),
    "fastflow": ("Fastflow", {"backbone": ALIAS}),
    "uflow": ("Uflow", {"backbone": ALIAS}),
    "reverse-distillation": ("ReverseDistillation", {"backbone": BACKBONE, "layers": list(STRIDES.values())}),
    "uninet": ("UniNet", {"temperature": 0.4}),
    "stfpm": ("Stfpm", {"backbone": BACKBONE, "layers": list(STRIDES.values())}),
    "fre": ("Fre", {"backbone": BACKBONE, "layer": STRIDES[16]}),
    "supersimplenet": ("Supersimplenet", {"backbone": BACKBONE, "layers": [STRIDES[8], STRIDES[16]]}),
    "draem": ("Draem", {"dtd_dir": None}),
    "ganomaly": ("Ganomaly", {"latent_vec_size": 256}),
    "dsr": ("Dsr", {}),
    # on a transformer, of which no weights can be had offline: for times and memory, with --random
    "anomaly-dino": ("AnomalyDINO", {"encoder_name": TRANSFORMER}),
    "rad": ("Rad", {"backbone": TRANSFORMER, "layers": [3, 6, 9, 11], "pre_trained": False}),
}
UNIT_RANGE = {"draem", "ganomaly", "dsr"}  # these see values in [0, 1], not normalised ones


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
    if kind == "Fre":
        options["input_dim"] = 112 * (size // 32) ** 2  # stride 16, pooled by 2
    if kind == "Dsr":
        if "vq_weights" not in options:
            raise SystemExit("dsr needs --set vq_weights=FILE: run_ours.py run --model dsr writes one")
        give_vq(options.pop("vq_weights"))
    if kind == "Cfa":
        give_to_cfa()
    if kind == "Csflow":
        give_to_csflow()
    if kind == "ReverseDistillation":
        give_to_reverse_distillation()
    if kind == "UniNet":
        give_to_uninet()
    transform = [v2.Resize((size, size), antialias=True)]
    if name not in UNIT_RANGE:
        transform.append(v2.Normalize([0.5] * 3, [0.5] * 3))
    transform = v2.Compose(transform)
    module = getattr(anomalib.models, kind)(
        **options,
        pre_processor=PreProcessor(transform=transform),
        post_processor=False,
        evaluator=False,
        visualizer=False,
    )
    if kind == "UniNet":
        module.model.fc = torch.nn.Linear(24, 1)  # of labels, from its student's finest layer
    if kind == "Supersimplenet":
        module.model.anomaly_generator.noise_std = (
            2.5  # as our card for this backbone; its own 0.015 is for other features
        )
    return module


def give_vq(path: str) -> None:
    """Put our discrete autoencoder, under its authors' names, where the peer's DSR would download theirs."""
    state = load_file(path)

    def load(self: torch.nn.Module) -> None:
        result = self.model.discrete_latent_model.load_state_dict(state, strict=False)
        missing = [
            key for key in result.missing_keys if "_ema_" not in key
        ]  # running means of a training not done here
        if missing or result.unexpected_keys:
            raise RuntimeError(f"{path}: missing {missing}, unexpected {result.unexpected_keys}")

    anomalib.models.Dsr.prepare_pretrained_model = lambda self: None
    anomalib.models.Dsr.on_train_start = load


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


def quicken_coreset() -> None:
    """Have the peer's greedy picks found by our search: the same start and the same picks, in seconds instead of minutes.

    For accuracy over several seeds; times and memory of such a run say nothing of the peer.
    """
    packages = Path(__file__).parents[2] / "packages"
    sys.path += [str(packages / name / "src") for name in ("adcore-runtime", "adcore", "adm-memory")]
    from adm_memory.coreset import farthest_first

    def select(self) -> list[int]:
        self.model.fit(self.embedding)
        self.features = self.model.transform(self.embedding)
        start = int(torch.randint(high=self.n_observations, size=(1,)))
        return farthest_first(self.features, self.coreset_size, start).tolist()

    KCenterGreedy.select_coreset_idxs = select


def memory_shape(model: torch.nn.Module) -> dict[str, list[int]]:
    """Shapes of the buffers of a one-pass model, as a check that both sides kept equally much."""
    wanted = ("memory_bank", "mean", "inv_covariance")
    return {name: list(value.shape) for name, value in model.named_buffers() if name.split(".")[-1] in wanted}


def versions() -> dict[str, str]:
    return {name: version(name) for name in ("anomalib", "lightning", "torch", "torchvision", "timm")}
