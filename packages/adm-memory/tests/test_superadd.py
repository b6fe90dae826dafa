"""SuperADD against a few lines of numpy, and what its crops and its brightness do."""

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from adcore.errors import ConfigError
from adcore.maps import gaussian_blur
from adcore.registry import create_model
from adcore.testing.tiny import fit_tiny, tiny_images
from adm_memory.superadd import crop_spans
from hypothesis import given
from hypothesis import strategies as st

SMALL = {"backbone": "resnet18", "layers": ("layer2", "layer3"), "weights": "random", "crop": 64, "overlap": 32}


@given(st.integers(1, 40), st.integers(1, 10), st.integers(0, 9), st.sampled_from([1, 14, 16]))
def test_crops_cover_a_side_and_overlap(side, crop, overlap, unit):
    overlap = min(overlap, crop - 1)
    spans = crop_spans(side * unit, crop * unit, overlap * unit, unit)
    starts = [start for start, _ in spans]
    assert all(value % unit == 0 for start, span in spans for value in (start, *span))
    assert (starts[0], starts[-1]) == (0, max(0, side - crop) * unit)
    assert all(0 < b - a <= (crop - overlap) * unit for a, b in pairwise(starts))
    used = [pixel for start, (first, end) in spans for pixel in range(start + first, start + end)]
    assert used == list(range(side * unit)), "each pixel once"
    assert all(0 <= first <= end <= crop * unit for _, (first, end) in spans)


def test_an_overlap_is_cut_in_the_middle():
    assert crop_spans(96, 64, 32, 16) == [(0, (0, 48)), (32, (16, 64))]


def test_scores_are_those_of_a_few_lines_of_numpy():
    factors = (0.5, 1.0)
    model = fit_tiny("superadd", size=96, images=2, epochs=1, brightness=factors, coreset_ratio=1.0, top=0.05, **SMALL)[
        0
    ]
    normal, new = tiny_images(2, (96, 96)), tiny_images(2, (96, 96), seed=7)
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    seen = torch.cat([((normal * std + mean) * factor - mean) / std for factor in factors])

    def patches(images, layer):  # each from the crop that has it farther from its border
        stride, rows = (8, 16)[layer], []
        for start, kept in ((0, slice(0, 48)), (32, slice(16, 64))):
            row = []
            for left, columns in ((0, slice(0, 48)), (32, slice(16, 64))):
                with torch.no_grad():
                    crop = model.extractor(images[:, :, start : start + 64, left : left + 64])[layer].double().numpy()
                size = [slice(one.start // stride, one.stop // stride) for one in (kept, columns)]
                row.append(crop[:, :, size[0], size[1]])
            rows.append(np.concatenate(row, 3))
        return np.concatenate(rows, 2).transpose(0, 2, 3, 1)  # (B, h, w, C)

    expected = 0
    for layer in range(2):
        bank, queries = patches(seen, layer), patches(new, layer)
        bank = bank.reshape(-1, bank.shape[-1])
        assert len(model.banks[layer].patches) == len(bank)
        distance = np.linalg.norm(queries[:, :, :, None] - bank, axis=4).min(3) / bank.shape[1] ** 0.5
        up = F.interpolate(torch.from_numpy(distance)[:, None], (96, 96), mode="bilinear", align_corners=False)[:, 0]
        expected = expected + up / 2
    expected = gaussian_blur(expected, sigma=4.0)
    with torch.no_grad():
        prediction = model(new)
    scale = float(expected.max())
    np.testing.assert_allclose(prediction.anomaly_map, expected, rtol=1e-3, atol=1e-3 * scale)
    top = np.sort(expected.flatten(1).numpy(), axis=1)[:, -int(0.05 * 96 * 96) :].mean(1)
    np.testing.assert_allclose(prediction.score, top, rtol=1e-3)


def test_a_darker_image_is_less_odd_where_darker_ones_were_seen():
    plain, robust = (
        fit_tiny("superadd", size=96, images=2, epochs=1, brightness=factors, coreset_ratio=1.0, **SMALL)[0]
        for factors in ((1.0,), (0.6, 1.0))
    )
    images = tiny_images(2, (96, 96))
    darker = plain.black + 0.6 * (images - plain.black)
    with torch.no_grad():
        assert (plain(images).score < 1e-3).all()
        assert (plain(darker).score > 0.01).all()
        assert (robust(darker).score < 1e-3).all()


def test_the_coreset_is_of_each_layer():
    model = fit_tiny("superadd", size=96, images=2, epochs=1, brightness=(1.0,), coreset_ratio=0.25, **SMALL)[0]
    assert [tuple(bank.patches.shape) for bank in model.banks] == [(72, 128), (18, 256)]


def test_crops_that_do_not_suit_the_network_are_refused():
    for wrong in ({"crop": 50}, {"overlap": 10}, {"overlap": 64}):
        with pytest.raises(ConfigError, match="multiples of 16"):
            create_model("superadd", **{**SMALL, **wrong})
    with pytest.raises(ConfigError, match="image_size"):
        create_model("superadd", **SMALL).check_run(4, (72, 96))
