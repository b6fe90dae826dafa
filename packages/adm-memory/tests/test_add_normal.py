"""Images added to a bank: the coreset of old and new, against a few lines of brute force."""

from __future__ import annotations

import pytest
import torch
from adcore.errors import ConfigError
from adcore.model import Fit
from adcore.registry import create_model
from adcore.testing.tiny import fit_tiny, tiny_batches
from adcore.training.plan import Plan
from adcore.update import check_can_add
from adm_memory.bank import reduced
from adm_memory.denoise import local_outlier_factors

SMALL = {"backbone": "resnet18", "layers": ("layer1", "layer2"), "weights": "random"}
LAYERED = {"backbone": "resnet18", "layers": ("layer2", "layer3"), "weights": "random"}
MANY = {"rad": LAYERED, "superadd": {**LAYERED, "crop": 64, "overlap": 32}}  # banks of several layers


def fit_of(batches, seed: int = 0) -> Fit:
    count = sum(len(batch.images) for batch in batches)
    logged = []
    fit = Fit(
        Plan(seed=seed),
        torch.device("cpu"),
        count,
        lambda: batches,
        None,
        lambda *one: logged.append(one),
        lambda *_: None,
    )
    fit.logged = logged
    return fit


def farthest(points: torch.Tensor, count: int, start: int) -> list[int]:
    """Greedy k-center selection, a pick at a time, in float64."""
    points, picks = points.double(), [start]
    nearest = torch.linalg.vector_norm(points - points[start], dim=1)
    while len(picks) < count:
        picks.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, torch.linalg.vector_norm(points - points[picks[-1]], dim=1))
    return picks


@pytest.mark.parametrize("name", ["patchcore", "softpatch"])
def test_the_new_bank_is_the_farthest_first_coreset_of_old_bank_and_new_patches(name):
    model = fit_tiny(name, images=4, coreset_ratio=0.1, **SMALL)[0]
    old, weights = model.memory_bank.clone(), getattr(model, "entry_weights", None)
    batches, fit = tiny_batches(3, (64, 64), 2, seed=5), fit_of(tiny_batches(3, (64, 64), 2, seed=5))
    with torch.no_grad():
        new = torch.cat([model.embed(image[None])[0] for batch in batches for image in batch.images])
        model.add_normal(fit)
    together = torch.cat([old, new])
    features, generator = reduced(together, fit)
    start = int(torch.randint(len(together), (1,), generator=generator))
    picks = farthest(features, len(old) + int(0.1 * len(new)), start)
    torch.testing.assert_close(model.memory_bank, together[picks], rtol=1e-4, atol=1e-4)
    assert fit.logged == [("entries_before", len(old)), ("entries_after", len(picks))]
    if name == "softpatch":
        factors = local_outlier_factors(new.view(3, -1, new.shape[1])).flatten()
        torch.testing.assert_close(model.entry_weights, torch.cat([weights, factors])[picks], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["rad", "superadd", "anomaly-dino"])
def test_while_all_is_kept_the_model_is_that_of_a_fit_on_all_images(name):
    settings = {**MANY.get(name, {**SMALL, "views": 1}), "coreset_ratio": 1.0}
    whole, part = (fit_tiny(name, images=count, **settings)[0] for count in (5, 3))
    part.add_normal(fit_of(tiny_batches(5, (64, 64), 1)[3:]))
    expected, found = (dict(model.named_buffers()) for model in (whole, part))
    assert {key: value.shape for key, value in found.items()} == {key: value.shape for key, value in expected.items()}
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_each_bank_of_superadd_is_the_farthest_first_coreset_of_old_and_new():
    model = fit_tiny("superadd", images=3, coreset_ratio=0.1, **MANY["superadd"])[0]
    everything = fit_tiny("superadd", images=3, coreset_ratio=1.0, **MANY["superadd"])[0]  # the same network
    batches = tiny_batches(2, (64, 64), 1, seed=5)
    everything.on_fit_start(fit_of(batches))
    for batch in batches:
        list(everything.training_step(batch, 0))
    everything.on_fit_end(fit_of(batches))  # all patches of the new images
    old = [bank.patches.clone() for bank in model.banks]
    fit = fit_of(batches)
    model.add_normal(fit)
    for bank, before, new in zip(model.banks, old, everything.banks, strict=True):
        together = torch.cat([before, new.patches])
        features, generator = reduced(together, fit)
        start = int(torch.randint(len(together), (1,), generator=generator))
        picks = farthest(features, len(before) + int(0.1 * len(new.patches)), start)
        torch.testing.assert_close(bank.patches, together[picks], rtol=1e-4, atol=1e-4)
    sizes = [sum(map(len, old)), sum(len(bank.patches) for bank in model.banks)]
    assert fit.logged == [("entries_before", sizes[0]), ("entries_after", sizes[1])]


def test_a_coreset_of_rad_grows_as_that_of_a_fit_on_all_images_and_keeps_what_is_new():
    """Three of ten images a place are kept; then two of another kind come, and four of twelve are."""
    model = fit_tiny("rad", images=10, coreset_ratio=0.3, **LAYERED)[0]
    unlike = tiny_batches(2, (64, 64), 1, anomalous=True, seed=3)
    before = [bank.clone() for bank in model.banks]
    fit = fit_of(unlike)
    with torch.no_grad():
        score = model(unlike[1].images).score.item()
        model.add_normal(fit)
        assert model(unlike[1].images).score.item() < 0.5 * score
    assert len(model.descriptors) == 12
    for bank, old in zip(model.banks, before, strict=True):
        assert (old.shape[1], bank.shape[1]) == (3, 4)
    places = sum(map(len, before))
    assert fit.logged == [("entries_before", 3 * places), ("entries_after", 4 * places)]


@pytest.mark.parametrize("name", ["patchcore", "softpatch", "anomaly-dino", "rad", "superadd"])
def test_added_images_are_normal_afterwards_and_the_same_images_give_the_same_bank(name):
    settings = {**MANY.get(name, SMALL), "coreset_ratio": 1.0}
    settings |= {"views": 1} if name == "anomaly-dino" else {}
    unlike = tiny_batches(2, (64, 64), 2, anomalous=True, seed=3)
    banks, scores = [], []
    for _ in range(2):
        model = fit_tiny(name, images=4, **settings)[0]
        known = tiny_batches(4, (64, 64), 4)[0].images
        with torch.no_grad():
            scores.append([model(unlike[0].images).score, model(known).score])
            model.add_normal(fit_of(unlike))
            scores.append([model(unlike[0].images).score, model(known).score])
        banks.append(dict(model.named_buffers()))
    assert all(torch.equal(banks[0][key], banks[1][key]) for key in banks[0])
    (before, kept), (after, still) = scores[:2]
    assert after.max() < 0.05 * before[1]  # what was added is known
    assert (still <= kept + 1e-3 * before[1]).all()  # and what was known still is


@pytest.mark.parametrize(
    ("name", "settings", "reason"),
    [
        ("padim-resnet18", {"weights": "random"}, "it keeps no bank of patches to add images to; train it again"),
        ("cfa", SMALL, "its features were trained around its bank; train it again"),
        ("musc", {**SMALL, "layers": ("layer2",)}, "it learns from no image"),
    ],
)
def test_a_model_that_cannot_says_why_before_it_reads_an_image(name, settings, reason):
    model = create_model(name, **settings)
    with pytest.raises(ConfigError, match=reason):
        check_can_add(model)
