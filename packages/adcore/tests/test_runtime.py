"""adcore-runtime does what adcore does: preprocessing, and what adcore takes from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from adcore.data.image_io import image_from_array
from adcore.preprocess import RESIZE_METHODS, Preprocess
from adcore_runtime import image, limits, overlay, preprocess, resize
from adcore_runtime.errors import ConfigError
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib import colormaps

SIDES = st.integers(1, 90)


@st.composite
def regions_within(draw, height, width):
    """(x, y, width, height)."""
    x, y = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return x, y, draw(st.integers(1, width - x)), draw(st.integers(1, height - y))


@st.composite
def cases(draw):
    """(preprocessing, an image as a camera gives it)."""
    size = (draw(st.integers(1, 40)), draw(st.integers(1, 40)))
    crop = draw(st.none() | st.tuples(st.integers(1, size[0]), st.integers(1, size[1])))
    stored = Preprocess(
        size=size,
        crop=crop,
        resize=draw(st.sampled_from(RESIZE_METHODS)),
        channels=draw(st.sampled_from((1, 3))),
        value_range=draw(st.sampled_from((None, (0.25, 0.75), (-1.0, 3.0)))),
    )
    dtype = draw(st.sampled_from((np.uint8, np.uint16, np.float32)))
    seed, shape = draw(st.integers(0, 2**32 - 1)), (draw(SIDES), draw(SIDES), *draw(st.sampled_from(((), (3,)))))
    stored = replace(stored, region=draw(st.none() | regions_within(*shape[:2])))
    generator = np.random.default_rng(seed)
    if dtype is np.float32:
        return stored, generator.random(shape, np.float32)
    return stored, generator.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


@given(cases())
def test_preprocessing_equals_adcores(case) -> None:
    stored, array = case
    ours = preprocess.Preprocess.from_dict(stored.to_dict())(image.image_from_array(array, stored.channels))
    expected = stored(image_from_array(array, stored.channels)).numpy()
    assert ours.dtype == np.float32
    assert ours.shape == expected.shape
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "sizes", [(1200, 1600, 256, 256), (3001, 17, 224, 255), (1000, 1000, 999, 1001), (4096, 3, 4095, 7)]
)
@pytest.mark.parametrize("method", ["bilinear", "nearest"])
def test_the_preprocessing_of_large_and_odd_images_equals_adcores(sizes, method) -> None:
    height, width, h, w = sizes
    values = np.random.default_rng(0).random((1, height, width), np.float32)
    stored = Preprocess(size=(h, w), resize=method, channels=1)
    ours = preprocess.Preprocess.from_dict(stored.to_dict())(values)
    np.testing.assert_allclose(ours, stored(torch.from_numpy(values)).numpy(), rtol=0, atol=1e-5)


@given(st.integers(1, 300), st.integers(1, 300))
def test_the_bands_are_a_matrix_whose_rows_sum_to_one(before, after) -> None:
    matrix = np.zeros((after, before))
    for band in resize.bands(before, after):
        matrix[band.target, band.source] = band.weights
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-5)
    assert (matrix >= 0).all()


def test_the_colours_are_matplotlibs() -> None:
    assert np.abs(overlay.COLOURS - colormaps["inferno"](np.arange(256))[:, :3]).max() < 0.51 / 255


@given(arrays(np.float32, (3, 5, 4), elements=st.floats(-2, 2, width=32)))
def test_a_photo_is_gray_within_eight_bits(values) -> None:
    gray = values.mean(0, dtype=np.float64)
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 1:
        gray = (gray - low) / max(high - low, 1e-12)
    assert np.abs(image.gray_photo(values) - 255 * gray).max() < 0.501


def test_the_runtimes_pixel_limit_is_a_variable(monkeypatch) -> None:
    monkeypatch.delenv("ADCORE_MAX_IMAGE_PIXELS", raising=False)
    assert limits.pixel_limit() == 100_000_000
    monkeypatch.setenv("ADCORE_MAX_IMAGE_PIXELS", "2000000")
    assert limits.pixel_limit() == 2_000_000
    for wrong in ("many", "-5", "10", "1e9"):
        monkeypatch.setenv("ADCORE_MAX_IMAGE_PIXELS", wrong)
        with pytest.raises(ConfigError, match="ADCORE_MAX_IMAGE_PIXELS must be"):
            limits.pixel_limit()
