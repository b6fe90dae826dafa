"""Defects of the demo's materials, drawn on a gray photograph with exact masks; each is one that a person sees."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.random import Generator
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scipy.spatial import KDTree

from adcore.data.textures import perlin_noise

Array = np.ndarray
Draw = Callable[[Array, dict[str, Array], Generator], tuple[Array, Array]]
FAINTEST = 0.1  # opacity below which nothing is painted, so that the mask's border is a visible one
COINS = (
    (55, 44, 19),
    (124, 205, 19),
    (124, 336, 18),
    (195, 102, 20),
    (197, 154, 18),
)  # row, column, radius in coins.png


def scratch(crop: Array, photos: dict[str, Array], rng: Generator) -> tuple[Array, Array]:
    """A bent bright line, thinner towards its ends, with a dark line beside it."""
    line, t = _bent_line(crop.shape, rng)
    half_width = rng.uniform(1.0, 1.8) * (1 - np.abs(t) ** 3)
    core, lip = line(half_width, 0), line(half_width, 1.8)
    paint = np.where(core >= lip, 0.3 * crop + 0.7 * 225, 0.45 * crop)
    return _paint(crop, paint, np.maximum(core, 0.7 * lip) * rng.uniform(0.8, 1))


def wire(crop: Array, photos: dict[str, Array], rng: Generator) -> tuple[Array, Array]:
    """A bent piece of wire that lies on the surface: constant width, dark, a bright line along it, a shadow beside it."""
    line, t = _bent_line(crop.shape, rng)
    half_width = np.full(t.shape, rng.uniform(1.8, 2.6))
    body, shine, shadow = line(half_width, 0), line(half_width / 3, -0.6), line(half_width, 2.5)
    paint = np.where(body > 0, 45 + 130 * shine, 0.55 * crop)
    return _paint(crop, paint, np.maximum(body, 0.8 * shadow))


def stain(crop: Array, photos: dict[str, Array], rng: Generator) -> tuple[Array, Array]:
    """A spilt liquid: the surface shows through, darker and smoother, darkest at the rim."""
    field = _blob(crop.shape, radius=rng.uniform(0.15, 0.2), roughness=0.35, rng=rng)
    inside = np.clip(field / 0.25, 0, 1)
    rim = np.exp(-(((field - 0.12) / 0.1) ** 2))
    wet = 0.7 * crop + 0.3 * gaussian_filter(crop, 1.5)
    darkness = rng.uniform(0.5, 0.65) * (0.75 + 0.25 * rim)
    return _paint(crop, wet * (1 - darkness), inside)


def missing_piece(crop: Array, photos: dict[str, Array], rng: Generator) -> tuple[Array, Array]:
    """A piece broken out: an angular hole with a rough dark floor, in shadow at the top left, lit at the bottom right."""
    hole = _angular_piece(crop.shape, rng.uniform(0.09, 0.14), rng)
    depth = distance_transform_edt(hole)
    slope_y, slope_x = np.gradient(gaussian_filter(np.minimum(depth, 5), 1))
    light = -(slope_y + slope_x) / np.sqrt(2)  # the wall at the top left falls away from the light
    floor = np.percentile(crop, 5) * 0.6 + 8 * _noise(crop.shape, (4, 5), rng) + 5 * rng.standard_normal(crop.shape)
    return _paint(crop, floor + 45 * light, gaussian_filter(hole.astype(float), 0.6))


def weeds(crop: Array, photos: dict[str, Array], rng: Generator) -> tuple[Array, Array]:
    """Grass that grows through the surface, cut from the photograph of grass."""
    grass = _cut(photos["grass"], crop.shape, rng)
    inside = _blob(crop.shape, radius=rng.uniform(0.12, 0.18), roughness=0.6, rng=rng) > 0
    edge = np.clip(distance_transform_edt(inside) / 3, 0.6, 1)  # darker towards its border, as in a shadow
    return _paint(crop, grass * edge, gaussian_filter(inside.astype(float), 0.5))


def fragment(crop: Array, photos: dict[str, Array], rng: Generator) -> tuple[Array, Array]:
    """A broken piece of brick that lies on the surface, cut from the photograph of bricks, with a shadow."""
    inside = _angular_piece(crop.shape, rng.uniform(0.12, 0.16), rng)
    shadow = np.roll(inside, (2, 2), axis=(0, 1))
    paint = np.where(inside, _cut(photos["brick"], crop.shape, rng) * 1.1, 0.4 * crop)
    return _paint(crop, paint, gaussian_filter((inside | shadow).astype(float), 0.5))


def coin(crop: Array, photos: dict[str, Array], rng: Generator) -> tuple[Array, Array]:
    """A lost coin, cut from the photograph of coins and turned, with a narrow shadow."""
    h, w = crop.shape
    row, column, radius = COINS[int(rng.integers(len(COINS)))]
    quarter_turns = int(rng.integers(4))
    coin = np.rot90(
        photos["coins"][row - radius : row + radius + 1, column - radius : column + radius + 1], quarter_turns
    )
    centre = rng.integers(radius + 4, (h - radius - 4, w - radius - 4))
    paint = 0.4 * crop
    paint[centre[0] - radius : centre[0] + radius + 1, centre[1] - radius : centre[1] + radius + 1] = coin
    y, x = np.mgrid[:h, :w]
    disc = np.clip(radius + 0.5 - np.hypot(y - centre[0], x - centre[1]), 0, 1)
    shadow = np.clip(radius + 0.5 - np.hypot(y - centre[0] - 2, x - centre[1] - 2), 0, 1)
    return _paint(crop, np.where(disc > 0, paint, 0.4 * crop), np.maximum(disc, 0.8 * shadow))


DEFECTS: dict[str, dict[str, Draw]] = {  # by category, what is found on such a surface
    "brick": {"missing_piece": missing_piece, "scratch": scratch, "stain": stain, "weeds": weeds},
    "gravel": {"coin": coin, "fragment": fragment, "stain": stain, "wire": wire},
}


def _cut(photo: Array, shape: tuple[int, int], rng: Generator) -> Array:
    top, left = (int(rng.integers(side - length + 1)) for side, length in zip(photo.shape, shape, strict=True))
    return photo[top : top + shape[0], left : left + shape[1]]


def _angular_piece(shape: tuple[int, int], radius: float, rng: Generator) -> Array:
    """(H, W) bool: a piece with corners somewhere in the image; `radius` as a share of the image."""
    h, w = shape
    corners = int(rng.integers(6, 10))
    directions = np.sort(rng.uniform(0, 2 * np.pi, corners))
    reach = rng.uniform(0.6, 1.3, corners) * radius * min(h, w)
    centre = np.array([h, w]) * rng.uniform(0.25, 0.75, 2)
    y, x = np.mgrid[:h, :w]
    y, x = y - centre[0], x - centre[1]
    border = np.interp(np.arctan2(y, x) % (2 * np.pi), directions, reach, period=2 * np.pi)
    return np.hypot(y, x) < border + 1.5 * _noise(shape, (4, 5), rng)


def _bent_line(shape: tuple[int, int], rng: Generator) -> tuple[Callable[[Array, float], Array], Array]:
    """A function of half widths (160,) and a sideways offset that gives the line's opacity (H, W); and the curve's
    parameter (160,) from -1 to 1."""
    h, w = shape
    length, angle = rng.uniform(0.4, 0.7) * min(h, w), rng.uniform(0, np.pi)
    middle = np.array([h, w]) * rng.uniform(0.35, 0.65, 2)
    along, aside = np.array([np.sin(angle), np.cos(angle)]), np.array([np.cos(angle), -np.sin(angle)])
    t = np.linspace(-1, 1, 160)
    bend = rng.uniform(-0.15, 0.15) * length
    curve = middle + (t * length / 2)[:, None] * along + ((1 - t**2) * bend)[:, None] * aside  # (160, 2)

    def line(half_width: Array, offset: float) -> Array:
        distance, nearest = KDTree(curve + offset * aside).query(np.moveaxis(np.mgrid[:h, :w], 0, -1))
        return np.clip(half_width[nearest] + 0.5 - distance, 0, 1)

    return line, t


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
