"""Synthetic anomalies: textures blended in under Perlin masks (DRAEM, DSR), and rectangular cut-paste (DRAEM-SevNet)."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import torchvision.transforms.v2.functional as TF
from adcore.data.textures import ProceduralTextures, TextureFolder, perlin_noise
from torch import Tensor

log = logging.getLogger(__name__)
Textures = TextureFolder | ProceduralTextures

# each on (3, H, W) in [0, 1]; DRAEM applies three different ones to every texture
AUGMENTATIONS = (
    lambda x: TF.adjust_gamma(x, float(torch.empty(()).uniform_(0.5, 2.0))),
    lambda x: TF.adjust_brightness(x, float(torch.empty(()).uniform_(0.8, 1.2))),
    lambda x: TF.adjust_sharpness(x, float(torch.empty(()).uniform_(1.0, 3.0))),
    lambda x: TF.adjust_hue(x, float(torch.empty(()).uniform_(-0.25, 0.25))),
    lambda x: TF.adjust_saturation(x, float(torch.empty(()).uniform_(0.5, 2.0))),
    lambda x: TF.solarize(x, float(torch.empty(()).uniform_(0.12, 0.5))),
    lambda x: TF.posterize(x, 4),
    TF.invert,
    TF.autocontrast,
    TF.equalize,
)


@dataclass(frozen=True)
class Blend:
    """How a texture is blended in."""

    beta: tuple[float, float] = (0.1, 1.0)  # opacity of the texture, lowest and highest
    probability: float = 0.5  # of an anomaly in an image
    threshold: float = 0.5  # of the Perlin noise


def texture_source(folder: str | None, model: str) -> Textures:
    """Textures from a folder of images; procedural ones when none is given, which is said in the log."""
    if folder is not None:
        return TextureFolder(folder)
    log.warning("%s: no textures folder given, using procedural textures (set textures=FOLDER, such as DTD)", model)
    return ProceduralTextures()


def augment(textures: Tensor) -> Tensor:
    """Three different random augmentations on each of (B, 3, H, W) in [0, 1]."""
    results = []
    for texture in textures:
        for choice in torch.randperm(len(AUGMENTATIONS))[:3].tolist():
            texture = AUGMENTATIONS[choice](texture)
        results.append(texture.clamp(0, 1))
    return torch.stack(results)


def perlin_masks(count: int, size: tuple[int, int], threshold: float = 0.5) -> Tensor:
    """(count, H, W) bool: where Perlin noise of 1 to 32 cells a side, turned by up to 90 degrees, is above `threshold`.

    The turn matters: noise of 1 x 32 cells is a scratch, and scratches come at any angle.
    """
    noise = perlin_noise(count, size, generator=torch.default_generator)
    angle = (torch.rand(count) - 0.5) * torch.pi
    cos, sin, aspect = (
        angle.cos(),
        angle.sin(),
        size[0] / size[1],
    )  # the grid's units are half a height and half a width
    zero = torch.zeros(count)
    turn = torch.stack([torch.stack([cos, -sin * aspect, zero], 1), torch.stack([sin / aspect, cos, zero], 1)], 1)
    grid = F.affine_grid(turn, [count, 1, *size], align_corners=False)
    return F.grid_sample(noise[:, None], grid, padding_mode="reflection", align_corners=False)[:, 0] > threshold


def texture_anomalies(images: Tensor, source: Textures, blend: Blend) -> tuple[Tensor, Tensor]:
    """(B, 3, H, W) in [0, 1] -> images with blended-in textures, and what was touched (B, H, W) bool.

    I_a = (1 - M) I + (1 - beta) M I + beta M A, with mask M and augmented texture A (Zavrtanik et al. 2021, eq. 2); beta is
    the opacity, drawn for each image. An image without an anomaly comes back as it was, with an empty mask. A gray image gets
    gray textures, unlike in the paper: colour would give every anomaly away, and real anomalies of gray images have none.
    """
    return blended(images, *draw_anomalies(len(images), tuple(images.shape[-2:]), source, blend))


def draw_anomalies(count: int, size: tuple[int, int], source: Textures, blend: Blend) -> tuple[Tensor, Tensor, Tensor]:
    """What `texture_anomalies` draws for `count` images of `size`: masks (B, H, W) bool, textures (B, 3, H, W), opacities."""
    defective = torch.rand(count) < blend.probability
    beta = torch.empty(count, 1, 1, 1).uniform_(*blend.beta)
    mask = torch.zeros(count, *size, dtype=torch.bool)
    textures = torch.zeros(count, 3, *size)
    if defective.any():
        number = int(defective.sum())
        mask[defective] = perlin_masks(number, size, blend.threshold)
        textures[defective] = augment(source.sample(number, size, torch.default_generator))
    return mask, textures, beta


def blended(images: Tensor, mask: Tensor, textures: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """Images and masks of `texture_anomalies`, from what was drawn for them."""
    mask, textures, beta = mask.to(images.device), textures.to(images), beta.to(images)
    gray = (images == images[:, :1]).flatten(1).all(1)[:, None, None, None]
    textures = torch.where(gray, textures.mean(1, keepdim=True), textures)
    return torch.where(mask[:, None], torch.lerp(images, textures, beta), images), mask


@dataclass(frozen=True)
class CutPaste:
    """A rectangular anomaly: pieces of the image itself, laid over it somewhere else."""

    width: tuple[float, float] = (0.05, 0.3)  # of the image's width, lowest and highest
    ratio: tuple[float, float] = (0.5, 2.0)  # height to width, in pixels
    count: int = 1  # most patches of one anomaly; all have the same size and severity
    severity_max: float = 1.0
    probability: float = 0.5  # of an anomaly in an image


def cut_paste(images: Tensor, anomaly: CutPaste) -> tuple[Tensor, Tensor, Tensor]:
    """(B, 3, H, W) -> damaged images, touched pixels (B, H, W) bool, severities (B,) in [0, severity_max], 0 without anomaly.

    A patch P cut from the image is laid over another place as I + severity P or I - severity P, by chance, so the damage
    grows with the severity also where the surface looks the same everywhere, and neither bright nor dark is an anomaly as such;
    values may leave [0, 1]. Severity 0 leaves the image as it was.
    """
    severity = torch.rand(len(images)) * anomaly.severity_max * (torch.rand(len(images)) < anomaly.probability)
    damaged, mask = images.clone(), torch.zeros(len(images), *images.shape[-2:], dtype=torch.bool, device=images.device)
    for index in severity.nonzero()[:, 0].tolist():
        strength = severity[index].item() * (1 - 2 * int(torch.randint(2, ())))
        for target, source in _places(tuple(images.shape[-2:]), anomaly):
            damaged[index][target] = images[index][target] + strength * images[index][source]
            mask[index][target[1:]] = True
    return damaged, mask, severity.to(images.device)


def _places(size: tuple[int, int], anomaly: CutPaste) -> list[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """(target, source) slices of (3, H, W) for each patch of one anomaly, all of one size, all inside the image."""
    width = size[1] * float(torch.empty(()).uniform_(*anomaly.width))
    height = width * float(torch.empty(()).uniform_(*anomaly.ratio))
    shape = [max(1, min(round(length), limit)) for length, limit in zip((height, width), size, strict=True)]
    number = int(torch.randint(1, anomaly.count + 1, ()))

    def anywhere() -> tuple[slice, ...]:
        starts = [int(torch.randint(limit - length + 1, ())) for length, limit in zip(shape, size, strict=True)]
        return (slice(None), *(slice(start, start + length) for start, length in zip(starts, shape, strict=True)))

    return [(anywhere(), anywhere()) for _ in range(number)]
