"""Convolution blocks and the weight initialisation that the models of this package share."""

from __future__ import annotations

from collections.abc import Callable

from adcore.errors import ConfigError
from torch import Tensor, nn

Norm = Callable[[int], nn.Module]


def double_conv(channels: int, hidden: int, out: int, norm: Norm = nn.BatchNorm2d) -> nn.Sequential:
    """(B, channels, H, W) -> (B, out, H, W): two 3x3 convolutions, each with a norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(channels, hidden, 3, padding=1),
        norm(hidden),
        nn.ReLU(inplace=True),
        nn.Conv2d(hidden, out, 3, padding=1),
        norm(out),
        nn.ReLU(inplace=True),
    )


def up_conv(channels: int, out: int, norm: Norm = nn.BatchNorm2d) -> nn.Sequential:
    """(B, channels, H, W) -> (B, out, 2H, 2W): bilinear upsampling, then a 3x3 convolution with a norm and ReLU."""
    return nn.Sequential(
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
        nn.Conv2d(channels, out, 3, padding=1),
        norm(out),
        nn.ReLU(inplace=True),
    )


def init_dcgan(module: nn.Module) -> None:
    """For `Module.apply`: convolutions from N(0, 0.02), batch-norm scales from N(1, 0.02) (Radford et al. 2016)."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


def check_size(images: Tensor, multiple: int, model: str) -> None:
    """ConfigError unless height and width of (B, C, H, W) are multiples of what the network halves them by."""
    check_sides(images.shape[-2:], multiple, model)


def check_sides(size: tuple[int, int], multiple: int, model: str) -> None:
    """The same for a size (height, width)."""
    height, width = size
    if height % multiple or width % multiple:
        fits = " x ".join(str(max(1, round(side / multiple)) * multiple) for side in (height, width))
        raise ConfigError(
            f"{model} needs an image size whose sides are multiples of {multiple}, got {height} x {width}; try {fits}"
        )


def check_positions(size: tuple[int, int], multiple: int, model: str) -> None:
    """ConfigError, too, for the size of a single position in the deepest layer, of which a norm has no statistics."""
    check_sides(size, multiple, model)
    if max(size) == multiple:
        raise ConfigError(f"{model} needs images larger than {multiple} x {multiple}; set image_size")
