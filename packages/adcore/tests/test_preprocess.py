"""Preprocess: geometry, values, and the round trip through the artifact's header."""

from __future__ import annotations

import json

import pytest
import torch
from adcore.preprocess import Preprocess
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image


def test_values_outside_zero_to_one_are_kept() -> None:
    image = torch.linspace(-2, 5, 3 * 8 * 8).reshape(3, 8, 8)
    assert torch.equal(Preprocess(size=(8, 8))(image), image)
    scaled = Preprocess(size=(8, 8), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))(image)
    torch.testing.assert_close(scaled, image * 2 - 1)


def test_bilinear_resize_agrees_with_pillow() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(3, 60, 90, generator=generator)
    ours = Preprocess(size=(32, 40))(image)
    reference = torch.tensor(
        [list(Image.fromarray(c.numpy()).resize((40, 32), Image.BILINEAR).getdata()) for c in image]
    )
    torch.testing.assert_close(ours.flatten(1), reference, atol=1e-5, rtol=0)


@settings(max_examples=30, deadline=None)
@given(st.integers(4, 40), st.integers(4, 40), st.integers(2, 40), st.integers(2, 40))
def test_masks_stay_binary_and_aligned_with_the_image(height, width, h, w) -> None:
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[: height // 2, : width // 2] = True
    preprocess = Preprocess(size=(h, w))
    small = preprocess.mask(mask)
    assert small.shape == (h, w)
    assert small.dtype == torch.bool
    image = preprocess(mask.float().expand(3, -1, -1))[0]
    assert not small[image < 0.02].any()
    assert small[image > 0.98].all()


def test_a_mask_is_read_at_the_middle_of_each_new_pixel() -> None:
    mask = torch.tensor([False, True, False, True, False, True]).expand(6, 6)  # columns 1 and 4 are the middle of three
    assert Preprocess(size=(6, 2)).mask(mask).tolist() == [[True, False]] * 6
    assert Preprocess(size=(2, 6)).mask(mask.t()).tolist() == [[True] * 6, [False] * 6]


def test_centre_crop() -> None:
    image = torch.arange(100.0).reshape(1, 10, 10).expand(3, -1, -1)
    cropped = Preprocess(size=(10, 10), crop=(4, 6))(image)
    assert torch.equal(cropped, image[:, 3:7, 2:8])


@pytest.mark.parametrize(
    "preprocess", [Preprocess(), Preprocess((8, 9), (4, 5), (0.1, 0.2, 0.3), (1.0, 2.0, 3.0), "nearest")]
)
def test_round_trip_through_json(preprocess) -> None:
    assert Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict()))) == preprocess
