"""MuSc against a few lines of numpy, and in blocks of images."""

import numpy as np
import pytest
import torch
from adcore.errors import ConfigError
from adcore.registry import create_model
from adcore.testing.tiny import tiny_images
from adm_memory import musc
from adm_memory.musc import MuSc, lowest_mean, nearest_distances, smoothed_scores


def build(**settings) -> MuSc:
    torch.manual_seed(0)
    model = create_model("musc-efficientnet-lite0", weights="random", **settings).eval()
    model.fitted = True
    return model


def rows(grid: np.ndarray, degree: int) -> np.ndarray:
    """(C, h, w) -> (h * w, C): means of neighbourhoods, by loops, of unit length."""
    _, h, w = grid.shape
    half = degree // 2
    means = [
        grid[:, max(0, y - half) : y + half + 1, max(0, x - half) : x + half + 1].mean((1, 2))
        for y in range(h)
        for x in range(w)
    ]
    return np.array([one / np.linalg.norm(one) for one in means])


def test_scores_are_those_of_a_few_lines_of_numpy():
    images = tiny_images(6, (64, 64), seed=3)
    model = build(degrees=(1, 3), lowest=0.4, neighbours=(1, 2))
    with torch.no_grad():
        described = [model.described(image) for image in images]
    grids = [[g[0].double().numpy() for g in one.grids] for one in described]
    maps = []
    for i in range(6):
        layers = []
        for layer in range(2):
            found = []
            for degree in (1, 3):
                own = rows(grids[i][layer], degree)
                others = [rows(grids[j][layer], degree) for j in range(6) if j != i]
                nearest = np.array([np.linalg.norm(own[:, None] - other, axis=2).min(1) for other in others])  # (5, P)
                found.append(np.sort(nearest, axis=0)[:2].mean(0))  # 40 % of five
            layers.append(np.mean(found, 0).reshape(grids[i][layer].shape[1:]))
        maps.append(layers)
    up = [
        torch.stack(
            [torch.nn.functional.interpolate(torch.tensor(m)[None, None], (64, 64), mode="bilinear")[0] for m in one]
        )
        for one in maps
    ]
    scores = np.array([float(one.mean(0).max()) for one in up])
    whole = np.array([one.descriptor.double().numpy() for one in described])
    likeness, averaged = whole @ whole.T, []
    for k in (1, 2):
        weights = np.where(likeness >= np.sort(likeness, 1)[:, [-k]], likeness, 0)
        averaged.append(weights @ scores / weights.sum(1))
    expected = np.mean(averaged, 0)
    predictions = list(model.score_all(images))
    assert [float(one.score) for one in predictions] == pytest.approx(expected, rel=2e-3)
    for one, want in zip(predictions, up, strict=True):
        torch.testing.assert_close(one.anomaly_map.double(), want.mean(0), rtol=2e-3, atol=2e-3)


def test_nearest_distances_in_parts_are_those_of_all(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    unit = torch.nn.functional.normalize
    queries, others = (
        unit(torch.randn(7, 5, generator=generator), dim=1),
        unit(torch.randn(9, 7, 5, generator=generator), dim=2),
    )
    monkeypatch.setattr(musc, "ROWS_BYTES", 1)
    expected = torch.stack([torch.cdist(queries, other).amin(1) for other in others], 1)
    torch.testing.assert_close(nearest_distances(queries, others), expected, rtol=1e-4, atol=1e-4)


def test_images_in_several_blocks_have_the_scores_of_one_block(monkeypatch):
    images = tiny_images(7, (64, 64), seed=5)
    whole = list(build().score_all(images))
    monkeypatch.setattr(musc, "BLOCK_BYTES", 2 * sum(4 * 4 * g.numel() for g in build().described(images[0]).grids))
    monkeypatch.setattr(musc, "OWN", 3)
    read = []

    class Watched:
        def __iter__(self):
            read.append(0)
            for image in images:
                read[-1] += 1
                yield image

    for one, expected in zip(build().score_all(Watched()), whole, strict=True):
        torch.testing.assert_close(one.score, expected.score)
        torch.testing.assert_close(one.anomaly_map, expected.anomaly_map)
    assert len(read) > 4, "features of all images at once would have been read once"


def test_the_lowest_share_keeps_odd_images_out():
    distances = torch.tensor([[9.0, 1.0, 2.0, 8.0, 7.0]])
    assert float(lowest_mean(distances, 0.4)) == 1.5
    assert float(lowest_mean(distances, 0.01)) == 1.0


def test_one_window_of_one_image_leaves_scores_as_they_are():
    descriptors = torch.nn.functional.normalize(torch.rand(5, 4), dim=1)
    scores = torch.rand(5)
    torch.testing.assert_close(smoothed_scores(scores, descriptors, (1,)), scores)
    everyone = smoothed_scores(scores, torch.ones(5, 4) / 2, (5,))
    torch.testing.assert_close(everyone, scores.mean().expand(5))


@pytest.mark.parametrize("settings", [{"degrees": (2,)}, {"neighbours": (0,)}])
def test_wrong_settings_are_one_line(settings):
    with pytest.raises(ConfigError):
        build(**settings)
