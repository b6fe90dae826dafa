"""Small seeded data and a quick fit, for tests that must not need files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from adcore.model import AnomalyModel, Batch
from adcore.registry import create_model
from adcore.request import ModelChoice, choose_model
from adcore.training.device import seed_everything
from adcore.training.trainer import Trainer, TrainingSummary

SIDE = 64  # of the images that are written


def tiny_images(count: int, size: tuple[int, int], seed: int = 0, start: int = 0, channels: int = 3) -> torch.Tensor:
    """(count, channels, h, w) in [0, 1]: a striped surface with fine noise, every image a little different."""
    h, w = size
    images = []
    for i in range(start, start + count):
        generator = torch.Generator().manual_seed(1000 * seed + i)
        phase = torch.rand(1, generator=generator) * 6.28
        wave = torch.sin(torch.arange(w) * 0.4 + phase).expand(h, w) * 0.2 + 0.5
        tint = (1 - 0.1 * torch.arange(channels) % 1)[:, None, None]
        images.append((wave * tint + 0.05 * torch.randn(channels, h, w, generator=generator)).clamp(0, 1))
    return torch.stack(images)


def tiny_batches(
    count: int, size: tuple[int, int], batch_size: int, anomalous: bool = False, seed: int = 0, channels: int = 3
) -> list[Batch]:
    """Batches of `tiny_images`; with `anomalous`, every second image has a bright square, with its mask."""
    images = tiny_images(count, size, seed, channels=channels)
    masks = torch.zeros(count, *size, dtype=torch.bool)
    if anomalous:
        h, w = size
        masks[1::2, h // 4 : h // 2, w // 4 : w // 2] = True
        images = torch.where(masks[:, None], images.flip(1) * 0.3 + 0.7, images)
    labels = masks.flatten(1).any(1).long()
    known = torch.ones(count, dtype=torch.bool)
    return [
        Batch(images[i:j], labels[i:j], masks[i:j], known[i:j], [f"tiny_{n}.png" for n in range(i, min(j, count))])
        for i, j in ((i, i + batch_size) for i in range(0, count, batch_size))
    ]


def fit_tiny(
    name: str, size: int = 64, images: int = 4, epochs: int = 2, seed: int = 0, device: str = "cpu", **overrides: Any
) -> tuple[AnomalyModel, TrainingSummary, ModelChoice]:
    """Fit the model `name` on tiny images: a fitted model on `device`, what the fit did, and the checked choice."""
    choice = choose_model(name, {"image_size": size, "epochs": epochs, "batch_size": 2, "seed": seed, **overrides})
    seed_everything(seed)
    model = create_model(name, **choice.config)
    size, channels = choice.preprocess.output_size, choice.preprocess.channels
    batches = tiny_batches(images, size, choice.plan.batch_size, choice.card.supervised, channels=channels)
    validation = tiny_batches(2, size, 1, seed=1, channels=channels)
    trainer = Trainer(model, choice.plan, batches, images, device, val_loader=lambda: validation)
    return model, trainer.run(), choice


def write_tiny_mvtec(root: Path, category: str = "part", train: int = 6, normal: int = 3, anomalous: int = 3) -> Path:
    """A striped surface in MVTec layout; defects are bright squares with exact masks."""
    images = (tiny_images(train + normal + anomalous, (SIDE, SIDE)).permute(0, 2, 3, 1).numpy() * 255).astype(np.uint8)
    folders = ["train/good"] * train + ["test/good"] * normal + ["test/spot"] * anomalous
    for number, (folder, image) in enumerate(zip(folders, images, strict=True)):
        path = root / category / folder / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if folder == "test/spot":
            image[20:36, 24:40] = 255
            mask = np.zeros((SIDE, SIDE), np.uint8)
            mask[20:36, 24:40] = 255
            target = root / category / "ground_truth" / "spot" / f"{number:03}_mask.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(target)
        Image.fromarray(image).save(path)
    return root
