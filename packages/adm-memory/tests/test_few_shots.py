"""SubspaceAD and AnomalyDINO against a few lines of numpy, and what they share."""

import math

import numpy as np
import pytest
import torch
from adcore.errors import ConfigError
from adcore.registry import create_model
from adcore.testing.tiny import fit_tiny, tiny_images
from adm_memory.anomaly_dino import foreground
from adm_memory.pca import StreamingPCA
from adm_memory.views import joined, layers_at, top_mean, turned

SMALL = {"backbone": "resnet18", "layers": ("layer1", "layer2"), "weights": "random"}


def test_views_are_turned_by_equal_parts_and_filled_by_reflection():
    images = tiny_images(2, (40, 40))
    views = list(turned(images, 4))
    assert len(views) == 4
    assert torch.equal(views[0], images)
    for quarter, view in enumerate(views):
        torch.testing.assert_close(view, torch.rot90(images, quarter, (2, 3)), atol=1e-4, rtol=0)
    oblique = list(turned(images + 1, 8))[1]
    assert oblique.min() >= images.min() + 1 - 1e-4, "no black corners"
    assert [view.shape for view in turned(torch.rand(1, 3, 28, 56), 3)] == [(1, 3, 28, 56)] * 3


@pytest.mark.parametrize(
    ("backbone", "blocks"),
    [("dinov2reg_vit_small_14", [7, 8]), ("dinov2_vit_large_14", [13, 14, 15, 16, 17])],
)
def test_layers_follow_the_depth(backbone, blocks):
    assert layers_at(backbone, 0.55, 0.70) == tuple(f"block{i}" for i in blocks)
    assert layers_at("dinov2_vit_small_14", 1, 1) == ("block11",)
    assert [round(share * 40) for share in (0.55, 0.70)] == [22, 28]  # the paper's


def test_layers_of_one_shape_are_averaged_and_others_stand_beside_one_another():
    a, b = torch.rand(1, 4, 6, 6), torch.rand(1, 4, 6, 6)
    assert torch.equal(joined([a, b]), (a + b) / 2)
    both = joined([a, torch.rand(1, 5, 3, 3)])
    assert both.shape == (1, 9, 6, 6)
    assert torch.equal(both[:, :4], a)


def test_top_mean():
    assert top_mean(torch.arange(200.0)[None], 0.01).tolist() == [198.5]
    assert top_mean(torch.tensor([[1.0, 5.0]]), 0.01).tolist() == [5.0]


def test_vectors_in_batches_give_the_components_of_all_at_once():
    points = torch.randn(900, 12, generator=torch.Generator().manual_seed(0))
    stream = StreamingPCA(900)
    for part in points.split((1, 300, 255, 344)):
        stream.add(part)
    mean, variances, _ = stream.components(0.999999)
    torch.testing.assert_close(mean, points.double().mean(0))
    torch.testing.assert_close(variances, torch.linalg.eigvalsh(points.double().T.cov()).flip(0))


def tokens_of(model, images):
    with torch.no_grad():
        return model.tokens(images).flatten(1, 2).double().numpy()  # (B, L, C)


def test_subspace_scores_are_those_of_a_few_lines_of_numpy():
    model = fit_tiny("subspace-ad", images=4, epochs=1, views=3, variance=0.9, **SMALL)[0]
    new = tiny_images(2, (64, 64), seed=7)
    views = torch.cat([torch.cat(list(turned(image[None], 3))) for image in tiny_images(4, (64, 64))])
    normal = tokens_of(model, views).reshape(-1, 192)
    mean = normal.mean(0)
    variances, directions = np.linalg.eigh(np.cov(normal.T))
    variances, directions = variances[::-1], directions[:, ::-1]
    k = int((np.cumsum(variances) / variances.sum() <= 0.9).sum()) + 1
    assert model.directions.shape == (k, 192)
    centred = tokens_of(model, new) - mean
    residual = ((centred - centred @ directions[:, :k] @ directions[:, :k].T) ** 2).sum(2)
    top = np.sort(residual, axis=1)[:, -max(1, int(0.01 * residual.shape[1])) :].mean(1)
    with torch.no_grad():
        np.testing.assert_allclose(model(new).score, top, rtol=1e-3)


def test_anomaly_dinos_scores_are_those_of_a_few_lines_of_numpy():
    model = fit_tiny("anomaly-dino", images=3, epochs=1, views=2, **SMALL)[0]
    new = tiny_images(2, (64, 64), seed=7)
    views = torch.cat([torch.cat(list(turned(image[None], 2))) for image in tiny_images(3, (64, 64))])
    bank, queries = tokens_of(model, views).reshape(-1, 192), tokens_of(model, new)
    assert len(model.memory_bank) == len(bank)
    bank = bank / np.linalg.norm(bank, axis=1, keepdims=True)
    queries = queries / np.linalg.norm(queries, axis=2, keepdims=True)
    distance = 1 - (queries @ bank.T).max(2)
    top = np.sort(distance, axis=1)[:, -max(1, int(0.01 * distance.shape[1])) :].mean(1)
    with torch.no_grad():
        np.testing.assert_allclose(model(new).score, top, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_object_in_the_middle_is_the_foreground(sign):
    tokens = torch.randn(20, 20, 8, generator=torch.Generator().manual_seed(1))
    tokens[4:16, 4:16, 0] += 60 * sign
    mask = foreground(tokens, 10.0)
    assert mask[4:16, 4:16].all()
    assert not mask[0].any()
    assert not mask[:, -1].any()


def test_a_mask_leaves_the_background_out():
    model = fit_tiny("anomaly-dino", images=2, epochs=1, views=1, masking=True, mask_threshold=0.0, **SMALL)[0]
    assert 0 < len(model.memory_bank) < 2 * 16 * 16
    with torch.no_grad():
        assert math.isfinite(float(model(tiny_images(1, (64, 64))).score))
    with pytest.raises(ConfigError, match="masking=false"):
        model.export_module()


def test_few_images_are_turned_and_many_are_not():
    for images, views in ((2, 8), (17, 1)):
        model = fit_tiny("anomaly-dino", images=images, epochs=1, size=32, **SMALL)[0]
        assert len(model.memory_bank) == images * views * 8 * 8
    assert create_model("subspace-ad-efficientnet-lite0", weights="random").views is None


def test_a_network_without_blocks_has_to_have_its_layers_named():
    for name in ("subspace-ad", "anomaly-dino", "rad"):
        with pytest.raises(ConfigError, match="name its layers"):
            create_model(name, backbone="resnet18", weights="random")
