"""Operations on maps, against scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from adcore.maps import gaussian_blur
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter


@settings(max_examples=30, deadline=None)
@given(st.integers(12, 40), st.integers(12, 40), st.floats(0.5, 1.4), st.integers(0, 99))
def test_the_blur_is_scipys(height, width, sigma, seed) -> None:
    maps = torch.randn(3, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    radius = int(4 * sigma + 0.5)
    expected = np.stack([gaussian_filter(m.numpy(), sigma, mode="mirror", radius=radius) for m in maps])
    torch.testing.assert_close(gaussian_blur(maps, sigma), torch.from_numpy(expected))


@pytest.mark.parametrize("shape", [(2, 3, 30), (1, 1, 1)])
def test_a_map_smaller_than_the_kernel_is_still_blurred(shape) -> None:
    torch.testing.assert_close(gaussian_blur(torch.ones(shape), 4.0), torch.ones(shape))
