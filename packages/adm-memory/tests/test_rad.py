"""RAD against a few lines of numpy, and what its position and its choice of images do."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from adcore.maps import gaussian_blur
from adcore.registry import create_model
from adcore.testing.tiny import fit_tiny, tiny_batches, tiny_images
from adcore.training.plan import Plan
from adcore.training.trainer import Trainer
from adm_memory.rad import nearby_cosines, spread_out

SMALL = {"backbone": "resnet18", "layers": ("layer2", "layer3"), "weights": "random"}


def nearest_in_numpy(bank, queries, similar, radius):
    """`nearby_cosines` by loops over images, positions and entries."""
    bank, queries = bank.double().numpy(), queries.double().numpy()
    count, _, h, w = queries.shape
    best = np.full((count, h, w), -np.inf)
    for b, y, x in np.ndindex(count, h, w):
        for there in np.ndindex(h, w):
            if max(abs(there[0] - y), abs(there[1] - x)) <= radius:
                entries = bank[there[0] * w + there[1]][similar[b].numpy()]
                best[b, y, x] = max(best[b, y, x], (entries @ queries[b, :, y, x]).max())
    return best


@pytest.mark.parametrize("radius", [0, 1, 2])
def test_cosines_are_those_of_loops_over_places_and_images(radius):
    generator = torch.Generator().manual_seed(radius)
    bank = F.normalize(torch.randn(15, 4, 6, generator=generator), dim=2)  # 3 x 5 places
    queries = F.normalize(torch.randn(2, 6, 3, 5, generator=generator), dim=1)
    similar = torch.tensor([[True, False, True, False], [False, True, True, True]])
    expected = nearest_in_numpy(bank, queries, similar, radius)
    np.testing.assert_allclose(nearby_cosines(bank, queries, similar, radius), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("backbone", "layers", "count"), [("resnet18", ("layer2", "layer3"), 2), ("dinov2_vit_small_14", (), 4)]
)
def test_scores_are_those_of_a_few_lines_of_numpy(backbone, layers, count):
    """Layers of several grids; layers of one grid, with all images: to random weights their class tokens are alike."""
    size = 56 if layers == () else 64
    small = {"backbone": backbone, "layers": layers, "weights": "random", "similar_images": count, "top": 0.05}
    model = fit_tiny("rad", size=size, images=4, epochs=1, **small)[0]
    normal, new = tiny_images(4, (size, size)), tiny_images(2, (size, size), seed=7)
    with torch.no_grad():
        maps, whole = model.described(normal)
        maps_new, whole_new = model.described(new)
        prediction = model(new)
    assert torch.linalg.vector_norm(torch.cat([whole, whole_new]), dim=1).sub(1).abs().max() < 1e-5
    likeness = (whole_new @ whole.T).numpy()
    similar = torch.from_numpy(likeness >= np.sort(likeness, axis=1)[:, [-count]])
    assert similar.sum(1).tolist() == [count, count]
    distances = []
    for before, now in zip(maps, maps_new, strict=True):
        best = nearest_in_numpy(before.flatten(2).permute(2, 0, 1), now, similar, radius=1)
        distance = torch.from_numpy(1 - best)[:, None]
        distances.append(F.interpolate(distance, (size, size), mode="bilinear", align_corners=False)[:, 0])
    expected = gaussian_blur(torch.stack(distances).mean(0), sigma=1.0, kernel_size=5)
    np.testing.assert_allclose(prediction.anomaly_map, expected, atol=1e-5)
    top = np.sort(expected.flatten(1).numpy(), axis=1)[:, -int(0.05 * size * size) :].mean(1)
    np.testing.assert_allclose(prediction.score, top, atol=1e-5)


def test_what_is_normal_in_one_place_is_not_in_another():
    """An image whose halves have changed places has patches that were seen, but not where they are now."""
    noise = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    image = torch.cat([noise[:, :, :32], noise[:, :, 32:] * 0.1 + 0.8], 2)
    model = create_model("rad", **SMALL)
    batches = tiny_batches(1, (64, 64), 1)
    batches[0].images = image
    Trainer(model, Plan(batch_size=1), batches, num_images=1).run()
    with torch.no_grad():
        same, moved = model(torch.cat([image, image.roll(32, 2)])).score.tolist()
    assert abs(same) < 1e-4
    assert moved > 0.01


def test_images_that_were_left_out_are_in_no_bank():
    """Bad files are skipped: fewer images come than were announced."""
    model = create_model("rad", **SMALL)
    Trainer(model, Plan(batch_size=1), tiny_batches(3, (64, 64), 1), num_images=5).run()
    assert model.descriptors.shape == (3, 256)
    assert [bank.shape for bank in model.banks] == [(64, 3, 128), (16, 3, 256)]


def test_layers_follow_the_depth():
    small = create_model("rad", backbone="dinov2_vit_small_14", weights="random")
    assert small.extractor.indices == [3, 6, 9, 11]


def test_kept_tokens_are_the_farthest_first_of_each_place():
    bank = F.normalize(torch.randn(6, 9, 5, generator=torch.Generator().manual_seed(0)), dim=2)
    picks = spread_out(bank, 4)
    for place, found in zip(bank.double().numpy(), picks.tolist(), strict=True):
        expected = [int((place @ place.mean(0)).argmax())]
        while len(expected) < 4:
            nearest = (place @ place[expected].T).max(1)
            nearest[expected] = np.inf
            expected.append(int(nearest.argmin()))
        assert found == expected


def test_a_coreset_keeps_what_differs_and_searches_all_of_it():
    """Nine images alike and one other: two tokens a place are enough for a distance of zero to any of them."""
    alike, other = tiny_images(1, (64, 64)), tiny_images(1, (64, 64), seed=5)
    images = torch.cat([alike.expand(9, -1, -1, -1), other])
    model = create_model("rad", **SMALL, similar_images=1, coreset_ratio=0.2)
    batches = [replace(tiny_batches(1, (64, 64), 1)[0], images=image[None]) for image in images]
    Trainer(model, Plan(batch_size=1), batches, num_images=10).run()
    model.fitted = True
    assert [bank.shape[1] for bank in model.banks] == [2, 2]
    with torch.no_grad():
        assert model(torch.cat([alike, other])).anomaly_map.abs().max() < 1e-5
        assert model(tiny_images(1, (64, 64), seed=9)).score.item() > 1e-3
