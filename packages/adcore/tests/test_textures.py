"""Noise must be Perlin's, textures must be in range, and both must follow their seed."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from adcore.data.image_io import write_image
from adcore.data.textures import FAMILIES, ProceduralTextures, TextureFolder, perlin_noise
from adcore.errors import DataError
from hypothesis import given, settings
from hypothesis import strategies as st


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def perlin_by_the_book(count: int, size: tuple[int, int], scales: tuple[int, int], seed: int) -> torch.Tensor:
    """One pixel after the other, from the four corners of its cell."""
    generator, points = seeded(seed), 2 ** scales[1] + 1
    cells = 2 ** torch.randint(scales[0], scales[1] + 1, (2, count), generator=generator)
    angles = torch.rand(count, points, points, generator=generator) * 2 * math.pi
    noise = torch.empty(count, *size)

    def fade(t: float) -> float:
        return 6 * t**5 - 15 * t**4 + 10 * t**3

    for b in range(count):
        for row in range(size[0]):
            for column in range(size[1]):
                y, x = row * cells[0, b].item() / size[0], column * cells[1, b].item() / size[1]
                i, j = int(y), int(x)
                corners = {}
                for down in (0, 1):
                    for across in (0, 1):
                        angle = angles[b, i + down, j + across].item()
                        corners[down, across] = math.sin(angle) * (y - i - down) + math.cos(angle) * (x - j - across)
                top, bottom = (
                    corners[down, 0] + fade(x - j) * (corners[down, 1] - corners[down, 0]) for down in (0, 1)
                )
                noise[b, row, column] = (top + fade(y - i) * (bottom - top)) * math.sqrt(2)
    return noise


@pytest.mark.parametrize("size", [(16, 16), (11, 23), (7, 3)])
def test_perlin_noise_equals_the_textbook(size: tuple[int, int]) -> None:
    fast = perlin_noise(4, size, (0, 3), seeded(3))
    assert torch.allclose(fast, perlin_by_the_book(4, size, (0, 3), 3), atol=2e-6)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 4),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 5),
    st.integers(0, 2),
    st.integers(0, 2**32),
)
def test_perlin_noise_properties(count: int, height: int, width: int, low: int, more: int, seed: int) -> None:
    scales = (low, low + more)
    noise = perlin_noise(count, (height, width), scales, seeded(seed))
    assert noise.shape == (count, height, width)
    assert noise.dtype == torch.float32
    assert noise.abs().max() <= 1 + 1e-5
    assert noise[:, 0, 0].abs().max() == 0  # a lattice point
    assert torch.equal(noise, perlin_noise(count, (height, width), scales, seeded(seed)))


def test_perlin_noise_is_smooth_zero_on_the_lattice_and_varied() -> None:
    noise = perlin_noise(64, (256, 256), (2, 2), seeded(0))  # 4 x 4 cells of 64 pixels
    assert noise[:, ::64, ::64].abs().max() == 0
    steepest = max(noise.diff(dim=1).abs().max(), noise.diff(dim=2).abs().max())
    assert steepest < 4.5 / 64  # no jump, also not from cell to cell
    assert noise.mean().abs() < 0.02
    assert noise.abs().amax((1, 2)).min() > 0.3
    assert not torch.equal(noise[0], noise[1])


def test_scales_set_the_size_of_the_structures() -> None:
    def roughness(k: int) -> float:
        noise = perlin_noise(16, (128, 128), (k, k), seeded(1))
        return (noise.diff(dim=2).abs().mean() / noise.abs().mean()).item()

    values = [roughness(k) for k in range(6)]
    assert all(1.5 < finer / coarser < 2.5 for coarser, finer in pairwise(values[1:])), values


@pytest.mark.parametrize("size", [(64, 64), (33, 80)])
def test_procedural_textures(size: tuple[int, int]) -> None:
    textures = ProceduralTextures(seed=1).sample(24, size)
    assert textures.shape == (24, 3, *size)
    assert textures.dtype == torch.float32
    assert textures.min() >= 0
    assert textures.max() <= 1
    assert textures.flatten(1).std(1).min() > 0.01, "every texture has some structure"
    assert torch.equal(textures, ProceduralTextures(seed=1).sample(24, size))
    assert not torch.equal(textures, ProceduralTextures(seed=2).sample(24, size))
    assert torch.equal(
        ProceduralTextures(seed=1).sample(3, size, seeded(5)), ProceduralTextures(seed=2).sample(3, size, seeded(5))
    )


@pytest.mark.parametrize("draw", FAMILIES)
def test_every_family_varies_within_and_between_its_textures(draw: object) -> None:
    shades = draw(6, (48, 72), seeded(0))
    assert shades.shape == (6, 48, 72)
    assert shades.min() >= 0
    assert shades.max() <= 1
    assert shades.flatten(1).std(1).mean() > 0.05
    assert all(not torch.allclose(shades[0], other, atol=0.05) for other in shades[1:])


def test_textures_do_not_touch_the_global_seed() -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    ProceduralTextures(0).sample(16, (32, 32))
    perlin_noise(2, (8, 8), generator=seeded(0))
    assert torch.equal(torch.rand(1), expected)


def test_texture_folder(tmp_path: Path) -> None:
    ramp = torch.linspace(0, 1, 40).expand(3, 20, 40)  # wide: covering 16 x 16 leaves a choice of places
    write_image(tmp_path / "a/ramp.png", ramp)
    write_image(tmp_path / "b/c/hot.tiff", torch.full((3, 8, 8), 7.0))
    folder = TextureFolder(tmp_path)
    textures = folder.sample(40, (16, 16), seeded(0))
    assert textures.shape == (40, 3, 16, 16)
    assert 0 <= textures.min() <= textures.max() <= 1
    assert torch.equal(textures, folder.sample(40, (16, 16), seeded(0)))
    ramps = textures[textures.flatten(1).std(1) > 0]
    assert 8 < len(ramps) < 32, "both files are drawn, also from deeper folders"
    assert len(ramps[:, 0, 0, 0].unique()) > 5, "another part each time"
    slope = ramps.diff(dim=3).mean().item()
    assert slope == pytest.approx(1 / 32, rel=0.15), "the shape of the texture is kept: 20 x 40 becomes 16 x 32"


def test_texture_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").touch()
    with pytest.raises(DataError, match=r"texture images; found: readme\.txt"):
        TextureFolder(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        TextureFolder(tmp_path / "none")


def test_real_textures(real_data: Path) -> None:
    folder = TextureFolder(real_data / "dtd")
    assert len(folder.files) == 200
    textures = folder.sample(6, (96, 128), seeded(0))
    assert textures.shape == (6, 3, 96, 128)
    assert textures.flatten(1).std(1).min() > 0.02
