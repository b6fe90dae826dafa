"""Golden cases of the reconstruction models."""

import functools
from types import SimpleNamespace
from unittest.mock import MagicMock

import torch
from golden_common import (
    STEPS,
    Result,
    descend,
    double_losses,
    evaluate,
    filled,
    inputs,
    optimizer_facts,
    peer,
    peer_optimizer,
    training_batches,
)

RECTANGLE = "height / 4 by width / 4 at (4 + 6 i, 8 + 4 i) holds texture i, mask 1"


class GivenDefects(torch.nn.Module):
    """Stands in for the peer's random augmenter: batch i becomes `defect.i` inside a rectangle that depends on i."""

    def __init__(self, shape: tuple[int, int, int, int], count: int) -> None:
        super().__init__()
        self.textures, self.facts = training_batches(count, shape, unit=True, prefix="defect")
        self.step = 0

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The augmented batch and its mask (B, 1, H, W) of zeros and ones."""
        height, width = images.shape[-2:]
        top, left = 4 + 6 * self.step, 8 + 4 * self.step
        mask = torch.zeros(len(images), 1, height, width, dtype=images.dtype)
        mask[:, :, top : top + height // 4, left : left + width // 4] = 1.0
        augmented = images * (1 - mask) + self.textures[self.step] * mask
        self.step += 1
        return augmented, mask


def draem(sspcab: bool) -> Result:
    """The peer's own step and optimizer, but the defects are given; training in float64, at a tenth of the rate.

    Batch norm over few values and Adam's first steps, which are signs, make the training chaotic: in float32, weights that
    differ by 1e-8 move the fifth loss by half a percent, and at the full rate a difference of 1e-10 grows to 2e-4.
    """
    name = "draem_sspcab" if sspcab else "draem"
    options = {"enable_sspcab": sspcab}
    shape = (2, 3, 64, 64)
    module = peer("Draem", 64, dtd_dir=None, **options)
    defects = GivenDefects(shape, STEPS)
    module.augmenter = defects
    if sspcab:
        module.on_train_start()
    optimizer = peer_optimizer(module)
    full_rate = optimizer.param_groups[0]["lr"]
    optimizer.param_groups[0]["lr"] = full_rate / 10
    parameters = filled(module, name)
    images, image_facts = inputs(shape, unit=True)
    batches, train_facts = training_batches(STEPS, shape, unit=True)
    tensors = evaluate(module.model, images)
    module.double()
    batches, defects.textures = ([batch.double() for batch in given] for given in (batches, defects.textures))
    tensors["losses"] = descend(double_losses(module, batches), optimizer)
    tensors |= {f"{key}_after": value for key, value in evaluate(module.model, images.double()).items()}
    facts = {"options": options, "input": image_facts, "train": train_facts, "parameters": parameters}
    facts |= {"optimizer": optimizer_facts(optimizer), "full_rate": full_rate, "training_dtype": "float64"}
    return tensors, facts | {"textures": defects.facts, "rectangle": RECTANGLE}


def ganomaly() -> Result:
    """Images in [-1, 1]. Both losses of the peer's own step, generator first, at a tenth of the rate: the two networks chase
    each other, and at the full rate the number of threads alone moves the scores by more than the bar."""
    options = {"n_features": 16, "latent_vec_size": 32}
    shape = (4, 3, 64, 64)
    module = peer("Ganomaly", 64, **options)
    optimizers = module.configure_optimizers()  # discriminator, generator
    full_rate = optimizers[1].param_groups[0]["lr"]
    for optimizer in optimizers:
        optimizer.param_groups[0]["lr"] = full_rate / 10
    parameters = filled(module, "ganomaly")
    images, image_facts = inputs(shape, unit=True)
    batches, train_facts = training_batches(STEPS, shape, unit=True)
    tensors = evaluate(module.model, 2 * images - 1)
    module.optimizers = lambda: optimizers
    module.manual_backward = lambda loss, **options: loss.backward(**options)
    module.log_dict = lambda *_, **__: None
    steps = [module.training_step(SimpleNamespace(image=2 * batch - 1), 0) for batch in batches]
    for name in ("generator", "discriminator"):
        tensors[f"{name}_losses"] = torch.stack([step[f"{name}_loss"].detach().double() for step in steps])
    tensors |= {f"{key}_after": value for key, value in evaluate(module.model, 2 * images - 1).items()}
    facts = {"options": options, "input": image_facts, "train": train_facts, "parameters": parameters}
    return tensors, facts | {"optimizer": optimizer_facts(optimizers[1]), "full_rate": full_rate}


def dsr() -> Result:
    """Second stage without latent anomalies (they are random), third stage with given defects, each from the filled state.

    Training in float64: a ReLU that rounding flips moves the second loss by a percent.
    """
    shape = (2, 3, 64, 64)
    images, image_facts = inputs(shape, unit=True)
    batches, train_facts = training_batches(STEPS, shape, unit=True)
    defects = GivenDefects(shape, STEPS)
    damaged = [tuple(tensor.double() for tensor in defects(batch)) for batch in batches]

    def build():
        module = peer("Dsr", 64)
        module._trainer = MagicMock(max_steps=1000, max_epochs=100)
        module._trainer.datamodule.train_dataloader.return_value = batches
        optimizers = [entry["optimizer"] for entry in module.configure_optimizers()]
        parameters = filled(module, "dsr")
        return module, optimizers, parameters

    module, (second, _), parameters = build()
    tensors = evaluate(module.model, images)
    other, (_, third), _ = build()
    torch.set_default_dtype(torch.float64)  # the peer's one-hot codes are of the default type
    module.double()
    other.double()
    tensors["losses"] = descend((second_stage(module, batch.double()) for batch in batches), second)
    third_stage = (other.third_stage_loss(other.model(image)["anomaly_map"], mask) for image, mask in damaged)
    tensors["upsampling_losses"] = descend(third_stage, third)
    tensors |= {f"{key}_after": value for key, value in evaluate(other.model, images.double()).items()}
    torch.set_default_dtype(torch.float32)
    facts = {"options": {}, "input": image_facts, "train": train_facts, "parameters": parameters}
    facts |= {"optimizer": optimizer_facts(second), "training_dtype": "float64"}
    return tensors, facts | {"textures": defects.facts, "rectangle": RECTANGLE}


def second_stage(module: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The peer's loss of its second stage on undisturbed codes."""
    out = module.model(images, torch.zeros_like(images[:, :1]))
    restored = out["recon_feat_hi"], out["recon_feat_lo"], out["embedding_bot"], out["embedding_top"]
    found = out["anomaly_map"], out["true_anomaly_map"]
    return module.second_stage_loss(*restored, images, out["obj_spec_image"], *found)


CASES = {
    "draem": functools.partial(draem, False),
    "draem_sspcab": functools.partial(draem, True),
    "ganomaly": ganomaly,
    "dsr": dsr,
}
