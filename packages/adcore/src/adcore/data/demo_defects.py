"""Four kinds of industrial fault, painted on a gray photograph with exact masks, from hardly to plainly visible."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.random import Generator
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scipy.spatial import KDTree

from adcore.data.textures import perlin_noise

Array = np.ndarray
FAINTEST = 0.1  # opacity below which nothing is painted, so that the mask's border is a visible one


def scratch(crop: Array, foreign: Array, visibility: float, rng: Generator) -> tuple[Array, Array]:
    """A bent line, thinner towards its ends: bright where it laid bare the material, with a dark lip beside it."""
    h, w = crop.shape
    length, angle = rng.uniform(0.35, 0.7) * min(h, w), rng.uniform(0, np.pi)
    middle = np.array([h, w]) * rng.uniform(0.35, 0.65, 2)
    along, aside = np.array([np.sin(angle), np.cos(angle)]), np.array([np.cos(angle), -np.sin(angle)])
    t = np.linspace(-1, 1, 160)
    bend = rng.uniform(-0.15, 0.15) * length
    curve = middle + (t * length / 2)[:, None] * along + ((1 - t**2) * bend)[:, None] * aside  # (160, 2)
    half_width = rng.uniform(0.7, 1.5) * (1 - np.abs(t) ** 3)

    def line(offset: float) -> Array:
        distance, nearest = KDTree(curve + offset * aside).query(np.moveaxis(np.mgrid[:h, :w], 0, -1))
        return np.clip(half_width[nearest] + 0.5 - distance, 0, 1)

    core, lip = line(0.0), line(1.6)
    paint = np.where(core >= lip, 0.3 * crop + 0.7 * 235, 0.45 * crop)
    return _paint(crop, paint, np.maximum(core, 0.7 * lip) * (0.35 + 0.65 * visibility))


def stain(crop: Array, foreign: Array, visibility: float, rng: Generator) -> tuple[Array, Array]:
    """A dried liquid: the surface shows through, darker and smoother, darkest at the rim."""
    field = _blob(crop.shape, radius=rng.uniform(0.12, 0.22), roughness=0.35, rng=rng)
    inside = np.clip(field / 0.25, 0, 1)
    rim = np.exp(-(((field - 0.12) / 0.1) ** 2))
    wet = 0.7 * crop + 0.3 * gaussian_filter(crop, 1.5)
    darkness = (0.12 + 0.38 * visibility) * (0.75 + 0.25 * rim)
    return _paint(crop, wet * (1 - darkness), inside)


def missing_piece(crop: Array, foreign: Array, visibility: float, rng: Generator) -> tuple[Array, Array]:
    """A piece broken out: an angular hole with a rough dark floor, in shadow at the top left, lit at the bottom right."""
    h, w = crop.shape
    corners = int(rng.integers(6, 10))
    directions = np.sort(rng.uniform(0, 2 * np.pi, corners))
    reach = rng.uniform(0.6, 1.3, corners) * rng.uniform(0.06, 0.13) * min(h, w)
    centre = np.array([h, w]) * rng.uniform(0.2, 0.8, 2)
    y, x = np.mgrid[:h, :w]
    y, x = y - centre[0], x - centre[1]
    border = np.interp(np.arctan2(y, x) % (2 * np.pi), directions, reach, period=2 * np.pi)
    hole = np.hypot(y, x) < border + 1.5 * _noise(crop.shape, (4, 5), rng)
    depth = distance_transform_edt(hole)
    slope_y, slope_x = np.gradient(gaussian_filter(np.minimum(depth, 5), 1))
    light = -(slope_y + slope_x) / np.sqrt(2)  # the wall at the top left falls away from the light
    floor = np.percentile(crop, 5) * 0.6 + 8 * _noise(crop.shape, (4, 5), rng) + 5 * rng.standard_normal(crop.shape)
    return _paint(crop, floor + 45 * light, gaussian_filter(hole.astype(float), 0.6) * (0.45 + 0.55 * visibility))


def foreign_texture(crop: Array, foreign: Array, visibility: float, rng: Generator) -> tuple[Array, Array]:
    """Some other material lying on the surface; the less visible, the smaller and the nearer to its brightness."""
    field = _blob(crop.shape, radius=(0.08 + 0.08 * visibility) * rng.uniform(0.9, 1.1), roughness=0.5, rng=rng)
    inside = field > 0
    spread = crop[inside].std() / max(foreign[inside].std(), 1.0)
    alike = (foreign - foreign[inside].mean()) * min(spread, 1.5) + crop[inside].mean()
    material = (1 - visibility) * alike + visibility * foreign
    edge = np.clip(distance_transform_edt(inside) / 3, 0.6, 1)  # a little darker where it rounds off
    return _paint(crop, material * edge, gaussian_filter(inside.astype(float), 0.5))


DEFECTS: dict[str, Callable[[Array, Array, float, Generator], tuple[Array, Array]]] = {
    "scratch": scratch,
    "stain": stain,
    "missing_piece": missing_piece,
    "foreign_texture": foreign_texture,
}


def _paint(crop: Array, paint: Array, opacity: Array) -> tuple[Array, Array]:
    """Image (H, W) uint8 and mask (H, W) bool; outside the mask every pixel is the crop's."""
    mask = opacity > FAINTEST
    painted = np.clip(crop + opacity * (paint - crop), 0, 255).round()
    return np.where(mask, painted, crop).astype(np.uint8), mask


def _blob(shape: tuple[int, int], radius: float, roughness: float, rng: Generator) -> Array:
    """1 in the middle of a rough ellipse, 0 on its border, negative outside; `radius` as a share of the image."""
    h, w = shape
    y, x = np.mgrid[:h, :w]
    centre = np.array(shape) * rng.uniform(0.25, 0.75, 2)
    angle, flatness = rng.uniform(0, np.pi), rng.uniform(0.6, 1)
    y, x = y - centre[0], x - centre[1]
    u, v = x * np.cos(angle) + y * np.sin(angle), (y * np.cos(angle) - x * np.sin(angle)) / flatness
    distance = np.hypot(u, v) / (radius * min(h, w))
    return 1 - distance + roughness * _noise(shape, (3, 4), rng) * np.clip(2 - distance, 0, 1)


def _noise(shape: tuple[int, int], scales: tuple[int, int], rng: Generator) -> Array:
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    return perlin_noise(1, shape, scales, generator)[0].double().numpy()
