"""SoftPatch: outlier factors as scikit-learn has them, and a bank from which a defect in the training images is kept out."""

import numpy as np
import pytest
import torch
from adcore.registry import create_model
from adcore.testing.tiny import fit_tiny, tiny_batches, tiny_images
from adcore.training.plan import Plan
from adcore.training.trainer import Trainer
from adm_memory.denoise import compacted, least_suspicious, local_outlier_factors
from sklearn.neighbors import LocalOutlierFactor

SMALL = {"backbone": "resnet18", "layers": ("layer1", "layer2"), "weights": "random"}


@pytest.mark.parametrize(("count", "neighbors"), [(20, 6), (5, 6), (2, 6), (9, 1)])
def test_factors_are_those_of_scikit_learn_at_each_position(count, neighbors):
    patches = torch.randn(count, 3, 8, generator=torch.Generator().manual_seed(0))
    patches[0, 1] += 9
    ours = local_outlier_factors(patches, neighbors)
    for position in range(3):
        theirs = LocalOutlierFactor(n_neighbors=min(neighbors, count - 1)).fit(patches[:, position].numpy())
        np.testing.assert_allclose(ours[:, position], -theirs.negative_outlier_factor_, rtol=1e-3)
    if count == 20:
        assert ours.flatten().argmax() == 1  # image 0, position 1


def test_one_image_has_nothing_to_compare_with():
    assert local_outlier_factors(torch.rand(1, 4, 3)).tolist() == [[1.0] * 4]


def test_the_most_suspicious_are_left_out_and_the_rest_stays_in_order():
    factors = torch.tensor([1.0, 5.0, 2.0, 9.0, 1.0])
    assert least_suspicious(factors, 0.4).tolist() == [0, 2, 4]
    assert least_suspicious(factors, 0.1).tolist() == [0, 1, 2, 3, 4]
    assert least_suspicious(torch.ones(1), 0.9).tolist() == [0]
    patches = torch.arange(20.0).view(10, 2)
    kept = torch.tensor([0, 3, 4, 8, 9])
    assert torch.equal(compacted(patches.clone(), kept, block=2), patches[kept])


def defective(images):
    images[0, :, 16:48, 16:48] = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(1))
    return images


@pytest.mark.parametrize("name", ["softpatch", "patchcore"])
def test_a_defect_among_the_training_images_is_still_found(name, monkeypatch):
    """The same defect in a training image and in a new one: a plain bank calls it normal."""
    from adcore.testing import tiny

    made = tiny.tiny_images
    monkeypatch.setattr(tiny, "tiny_images", lambda *a, **k: defective(made(*a, **k)))
    model = fit_tiny(name, images=24, epochs=1, coreset_ratio=1.0, **SMALL)[0]
    shown = tiny_images(24, (64, 64))[:2].clone()
    clean = made(24, (64, 64))[0]
    shown[0], shown[1] = defective(made(24, (64, 64)))[0], clean
    with torch.no_grad():
        defect, normal = model(shown).score.tolist()
    assert (defect > 2 * normal + 0.1) == (name == "softpatch")


def test_scores_are_those_of_a_few_lines_of_numpy():
    model = fit_tiny("softpatch", images=8, epochs=1, coreset_ratio=1.0, **SMALL)[0]
    images = tiny_images(8, (64, 64))
    with torch.no_grad():
        patches, (h, w) = model.embed(images)
        new, _ = model.embed(tiny_images(1, (64, 64), seed=7))
        score = model(tiny_images(1, (64, 64), seed=7)).score
    factors = local_outlier_factors(patches.view(8, h * w, -1)).flatten().numpy()
    order = np.argsort(factors, kind="stable")[: len(factors) - int(0.15 * len(factors))]
    bank, weights = patches.numpy()[order], factors[order]
    distances = np.linalg.norm(new.numpy()[:, None] - bank, axis=2)
    nearest = distances.argmin(1)
    np.testing.assert_allclose(score, (distances.min(1) * weights[nearest]).max(), rtol=1e-3)


def test_images_that_were_left_out_are_no_patches():
    """Bad files are skipped: fewer images come than were announced."""
    model = create_model("softpatch", **SMALL)
    batches = tiny_batches(5, (64, 64), 1)
    Trainer(model, Plan(batch_size=1), batches, num_images=9).run()
    assert len(model.memory_bank) == int(0.1 * (5 * 256 - int(0.15 * 5 * 256)))


def test_patchcore_leaves_out_as_many_on_request():
    plain, clean = (
        fit_tiny("patchcore", images=8, epochs=1, coreset_ratio=1.0, denoise=denoise, **SMALL)[0]
        for denoise in ("none", "lof")
    )
    assert len(clean.memory_bank) == len(plain.memory_bank) - int(0.15 * len(plain.memory_bank))
    assert create_model("softpatch-efficientnet-lite0", weights="random").num_neighbors == 1
