"""Seconds per training step of the peer under its own engine, on random pictures and random weights (for timing only)."""

import statistics
import time
from pathlib import Path

import anomalib.models
import numpy as np
import torch
from anomalib.data import Folder
from anomalib.engine import Engine
from anomalib.pre_processing import PreProcessor
from lightning.pytorch import Callback
from PIL import Image
from torchvision.transforms import v2

# the peer's class and the options that make it the card of the same name
MODELS: dict[str, tuple[str, dict]] = {
    "stfpm": ("Stfpm", {"backbone": "resnet50"}),
    "stfpm-resnet18": ("Stfpm", {"backbone": "resnet18"}),
    "fre": ("Fre", {"backbone": "resnet50"}),
    "reverse-distillation": ("ReverseDistillation", {"backbone": "wide_resnet50_2"}),
    "reverse-distillation-resnet18": ("ReverseDistillation", {"backbone": "resnet18"}),
    "efficientad-small": ("EfficientAd", {"model_size": "small"}),
    "efficientad-medium": ("EfficientAd", {"model_size": "medium"}),
    "fastflow": ("Fastflow", {"backbone": "wide_resnet50_2"}),
    "fastflow-resnet18": ("Fastflow", {"backbone": "resnet18"}),
    "cflow-resnet18": ("Cflow", {"backbone": "resnet18", "layers": ["layer2", "layer3"]}),
    "csflow": ("Csflow", {}),
    "uflow": ("Uflow", {"backbone": "wide_resnet50_2"}),
    "uflow-resnet18": ("Uflow", {"backbone": "resnet18"}),
    "cfa": ("Cfa", {"backbone": "wide_resnet50_2"}),
    "cfa-resnet18": ("Cfa", {"backbone": "resnet18"}),
    "draem": ("Draem", {"dtd_dir": None}),
    "draem-sspcab": ("Draem", {"dtd_dir": None, "enable_sspcab": True}),
    "ganomaly": ("Ganomaly", {"latent_vec_size": 256}),
    "dsr": ("Dsr", {"upsampling_train_ratio": 1.0}),  # the one epoch is its second stage
    "dinomaly-small-224": ("Dinomaly", {"encoder_name": "vit_small_patch14_dinov2"}),
    "dinomaly-base-224": ("Dinomaly", {"encoder_name": "vit_base_patch14_dinov2"}),
    "supersimplenet": ("Supersimplenet", {"backbone": "wide_resnet50_2"}),
    "uninet": ("UniNet", {}),
}


class Stopwatch(Callback):
    """Seconds from the start of each batch to its end (optimizer step included), and from one end to the next.

    A GPU finishes its work before a second counts.
    """

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.ends: list[float] = []

    def on_train_batch_start(self, *_: object) -> None:
        self.started = time.perf_counter()

    def on_train_batch_end(self, *_: object) -> None:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())
        self.steps.append(self.ends[-1] - self.started)


class TrainingOnly(Folder):
    """The peer's data module with nothing to validate on."""

    def val_dataloader(self) -> list:
        return []


def draw_pictures(folder: Path, count: int, size: int) -> None:
    """`count` smooth random PNGs of `size` x `size`."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        coarse.resize((size, size), Image.Resampling.BILINEAR).save(folder / f"{number:04d}.png")


def build(name: str, size: int, scratch: Path) -> torch.nn.Module:
    """The peer's model; what it would download is replaced by random weights and by pictures drawn here."""
    kind, options = MODELS[name]
    options = dict(options)
    if kind == "EfficientAd":
        draw_pictures(scratch / "imagenette" / "class", 16, size)
        options["imagenet_dir"] = scratch / "imagenette"
        anomalib.models.EfficientAd.prepare_pretrained_model = lambda self: None
    if kind == "Dsr":
        anomalib.models.Dsr.prepare_pretrained_model = lambda self: None
        anomalib.models.Dsr.on_train_start = lambda self: None
    if kind == "Fre":
        options["input_dim"] = 1024 * (size // 32) ** 2  # resnet50 layer3, pooled by 2
    transform = [v2.Resize((size, size), antialias=True)]
    if kind not in ("EfficientAd", "Draem", "Ganomaly", "Dsr"):
        transform.append(v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    processor = PreProcessor(transform=v2.Compose(transform))
    return getattr(anomalib.models, kind)(
        **options, pre_processor=processor, post_processor=False, evaluator=False, visualizer=False
    )


def measure(
    name: str, size: int, batch: int, steps: int, warm_up: int, scratch: Path, accelerator: str = "cpu"
) -> dict:
    """Median, smallest and all step times of one short epoch, in seconds."""
    model = build(name, size, scratch)
    draw_pictures(scratch / "data" / "good", batch * (steps + warm_up), size)
    data = TrainingOnly(
        name="steps",
        root=scratch / "data",
        normal_dir="good",
        train_batch_size=batch,
        num_workers=0,
        test_split_mode="none",
        val_split_mode="none",
    )
    watch = Stopwatch()
    engine = Engine(
        default_root_dir=scratch / "results",
        accelerator=accelerator,
        devices=1,
        logger=False,
        max_epochs=1,
        callbacks=[watch],
    )
    engine.fit(model=model, datamodule=data)
    kept = watch.steps[warm_up:]
    intervals = np.diff(watch.ends)[warm_up - 1 :]
    return {
        "step_seconds": statistics.median(kept),
        "step_seconds_smallest": min(kept),
        "interval_seconds": float(np.median(intervals)),
        "all_steps": [round(seconds, 5) for seconds in watch.steps],
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }
