"""Images added to a bank: the coreset of old and new, against a few lines of brute force."""

from __future__ import annotations

import pytest
import torch
from adcore.errors import ConfigError
from adcore.model import Fit
from adcore.registry import create_model
from adcore.testing.tiny import fit_tiny, tiny_batches
from adcore.training.plan import Plan
from adm_memory.bank import reduced
from adm_memory.denoise import local_outlier_factors

SMALL = {"backbone": "resnet18", "layers": ("layer1", "layer2"), "weights": "random"}


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


@pytest.mark.parametrize("name", ["patchcore", "softpatch", "anomaly-dino"])
def test_added_images_are_normal_afterwards_and_the_same_images_give_the_same_bank(name):
    settings = {**SMALL, "coreset_ratio": 1.0}
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
        banks.append(model.memory_bank)
    assert torch.equal(*banks)
    (before, kept), (after, still) = scores[:2]
    assert after.max() < 0.05 * before[1]  # what was added is known
    assert (still <= kept + 1e-3 * before[1]).all()  # and what was known still is


def test_a_model_without_a_bank_says_so_before_it_reads_an_image():
    model = create_model("padim-resnet18", weights="random")
    with pytest.raises(ConfigError, match="train it again"):
        model.add_normal(None)
