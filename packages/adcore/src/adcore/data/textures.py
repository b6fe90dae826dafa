"""Auxiliary textures for synthetic anomalies: a folder of images such as DTD, or procedural; and Perlin noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from adcore.data.image_io import read_image
from adcore.data.layout import found_in, images_below
from adcore.errors import DataError


def perlin_noise(
    count: int, size: tuple[int, int], scales: tuple[int, int] = (0, 5), generator: torch.Generator | None = None
) -> Tensor:
    """Perlin gradient noise (Perlin 1985): (count, H, W) float32 in [-1, 1], zero on the lattice points.

    Each image has 2**k cells down and 2**l across, with k and l drawn from `scales`, both ends included.

    Noise is bilinear in the lattice: sum over i, j of fade(y - i) fade(x - j) (g_y (y - i) + g_x (x - j)), so two matrix
    products per image replace the usual gather of four corners per pixel.
    """
    low, high = scales
    cells = 2.0 ** torch.randint(low, high + 1, (2, count), generator=generator)  # (2, B): down, across
    points = 2**high + 1
    angle = torch.rand(count, points, points, generator=generator) * 2 * math.pi  # of the gradients, (B, I, J)
    y, x = (_lattice_offsets(n, length, points) for n, length in zip(cells, size, strict=True))  # (B, H, I), (B, W, J)
    fade_y, fade_x = _fade(1 - y.abs()), _fade(1 - x.abs())
    down = (fade_y * y) @ angle.sin() @ fade_x.mT
    across = fade_y @ angle.cos() @ (fade_x * x).mT
    return (down + across) * math.sqrt(2)  # unit gradients reach sqrt(1/2) at most


def _lattice_offsets(cells: Tensor, length: int, points: int) -> Tensor:
    """Distance of each pixel to each lattice point in cells: (B,) cell counts -> (B, length, points)."""
    position = torch.arange(length) / length * cells[:, None]
    return position[:, :, None] - torch.arange(points)


def _fade(t: Tensor) -> Tensor:
    """Perlin's 6t^5 - 15t^4 + 10t^3, zero for t below 0."""
    t = t.clamp(min=0)
    return t**3 * (t * (6 * t - 15) + 10)


class TextureFolder:
    """Textures from any tree of images, such as DTD (Cimpoi et al. 2014)."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.files = images_below(self.path)
        if not self.files:
            raise DataError(f"{self.path}: expected a folder of texture images; {found_in(self.path)}")

    def sample(self, count: int, size: tuple[int, int], generator: torch.Generator | None = None) -> Tensor:
        """(count, 3, H, W) in [0, 1]: a random part of random images, scaled to cover `size`; DataError for a bad file."""
        picks = torch.randint(len(self.files), (count,), generator=generator).tolist()
        places = torch.rand(count, 2, generator=generator)
        textures = [_cover(read_image(self.files[i]), size, place) for i, place in zip(picks, places, strict=True)]
        return torch.stack(textures).clamp_(0, 1)


def _cover(image: Tensor, size: tuple[int, int], place: Tensor) -> Tensor:
    """Scale (3, H, W) until it covers `size`, and cut at the relative `place` (down, across)."""
    scale = max(target / length for target, length in zip(size, image.shape[1:], strict=True))
    scaled = [max(round(length * scale), target) for target, length in zip(size, image.shape[1:], strict=True)]
    image = F.interpolate(image[None], scaled, mode="bilinear", antialias=True)[0]
    top, left = ((place * (torch.tensor(scaled) - torch.tensor(size) + 1)).long()).tolist()
    return image[:, top : top + size[0], left : left + size[1]]


class ProceduralTextures:
    """Procedural textures, used when no folder is given: clouds, marble, stripes, checks, dots, cells, weave, grain.

    Colours, scale, angle and roughness are drawn anew for each; `seed` counts where `sample` is given no generator.
    """

    def __init__(self, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def sample(self, count: int, size: tuple[int, int], generator: torch.Generator | None = None) -> Tensor:
        """(count, 3, H, W) float32 in [0, 1]."""
        generator = generator or self.generator
        family = torch.randint(len(FAMILIES), (count,), generator=generator)
        shade = torch.empty(count, *size)  # (B, H, W) in [0, 1]
        for number, draw in enumerate(FAMILIES):
            chosen = (family == number).nonzero()[:, 0]
            if len(chosen):
                shade[chosen] = draw(len(chosen), size, generator)
        dark, bright = torch.rand(2, count, 3, 1, 1, generator=generator)
        grain = torch.rand(count, 1, 1, 1, generator=generator) * 0.1
        grain = grain * torch.randn(count, 1, *size, generator=generator)
        return (torch.lerp(dark, bright, shade[:, None]) + grain).clamp_(0, 1)


def _turned_grid(count: int, size: tuple[int, int], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Coordinates u, v (B, H, W) in periods: turned by a random angle, 4 to 24 periods across, bent a little by noise."""
    h, w = size
    y, x = torch.meshgrid(torch.arange(h) / max(h, w), torch.arange(w) / max(h, w), indexing="ij")
    angle, periods, bend, phase_u, phase_v = torch.rand(5, count, 1, 1, generator=generator)
    periods = 4 * 6**periods
    warp = 0.6 * bend**2 * perlin_noise(count, size, (1, 3), generator)
    u = (x * (angle * math.pi).cos() + y * (angle * math.pi).sin()) * periods + phase_u + warp
    v = (y * (angle * math.pi).cos() - x * (angle * math.pi).sin()) * periods + phase_v + warp
    return u, v


def _wave(u: Tensor) -> Tensor:
    return 0.5 + 0.5 * (2 * math.pi * u).cos()


def _hardened(shade: Tensor, generator: torch.Generator) -> Tensor:
    """Edges from soft to sharp, and a random share of dark and bright."""
    sharpness, middle = torch.rand(2, len(shade), 1, 1, generator=generator)
    return torch.sigmoid((shade - 0.3 - 0.4 * middle) * 4 * 16**sharpness)


def clouds(count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Perlin noise of four octaves, each finer one weaker by a random factor."""
    weight = 0.4 + 0.5 * torch.rand(count, 1, 1, generator=generator)
    octaves = [perlin_noise(count, size, (k, k + 1), generator) * weight**k for k in range(1, 5)]
    return _hardened(0.5 + sum(octaves), generator)


def marble(count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Veins: stripes bent by strong noise."""
    u, _ = _turned_grid(count, size, generator)
    return _wave(
        u / 3 + 2 * perlin_noise(count, size, (1, 2), generator) + perlin_noise(count, size, (3, 4), generator)
    )


def stripes(count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Parallel bands."""
    return _hardened(_wave(_turned_grid(count, size, generator)[0]), generator)


def checks(count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """A chessboard, sharp or soft."""
    u, v = _turned_grid(count, size, generator)
    return _hardened(0.5 + 0.5 * (math.pi * u).sin() * (math.pi * v).sin(), generator)


def dots(count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Round spots on a grid."""
    u, v = _turned_grid(count, size, generator)
    return _hardened(1 - 2 * ((u - u.round()) ** 2 + (v - v.round()) ** 2).sqrt(), generator)


def weave(count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Threads over and under each other."""
    u, v = _turned_grid(count, size, generator)
    over = (u.floor() + v.floor()) % 2 == 0
    return torch.where(over, _wave(u - 0.5), _wave(v - 0.5)) * torch.where(over, 1.0, 0.7)


def cells(count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Worley noise (1996): cells of random points, as plates with their own shades or as joints between them."""
    n = int(torch.randint(16, 65, (1,), generator=generator))
    h, w = size
    y, x = torch.meshgrid(torch.arange(h) / max(h, w), torch.arange(w) / max(h, w), indexing="ij")
    pixels = torch.stack([y, x], dim=-1).reshape(1, -1, 2)
    points = torch.rand(count, n, 2, generator=generator) * torch.tensor([h, w]) / max(h, w)
    nearest, index = torch.cdist(pixels, points).topk(2, dim=2, largest=False)  # (B, H*W, 2)
    plates = torch.rand(count, n, generator=generator).gather(1, index[..., 0])
    joints = ((nearest[..., 1] - nearest[..., 0]) * math.sqrt(n) * 4).clamp(max=1)
    as_plates = torch.rand(count, 1, generator=generator) < 0.5
    return torch.where(as_plates, plates * joints.clamp(min=0.5), joints).reshape(count, h, w)


def grain(count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Brushed or sanded: white noise smeared along one direction."""
    h, w = size
    noise = torch.rand(count, 1, h, w, generator=generator)
    across = torch.rand(count, 1, 1, generator=generator) < 0.5
    blurred = [F.avg_pool2d(F.pad(noise, pad, mode="circular"), kernel, stride=1)[:, 0] for pad, kernel in _SMEARS]
    return (0.5 + 3 * (torch.where(across, *blurred) - 0.5)).clamp(0, 1)


_SMEARS = [((8, 8, 0, 0), (1, 17)), ((0, 0, 8, 8), (17, 1))]
FAMILIES: tuple[Callable[[int, tuple[int, int], torch.Generator], Tensor], ...] = (
    *(clouds, marble, stripes, checks, dots, weave, cells, grain),
)
