"""The streaming PCA against scikit-learn's on all vectors at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from adcore.errors import TrainingError
from adm_memory.pca import BLOCK, StreamingPCA
from sklearn.decomposition import PCA


def features(n: int, d: int, seed: int = 0) -> torch.Tensor:
    """Correlated and far from the origin, like those of a network."""
    g = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=g) * torch.arange(1, d + 1)[:, None] ** -0.5
    return torch.randn(n, d, generator=g) @ mixing + 30


def streamed(data: torch.Tensor, batch: int = 7, room: int = 0) -> StreamingPCA:
    pca = StreamingPCA(len(data), room)
    for part in data.split(batch):
        pca.add(part)
    return pca


# few vectors; as many as dimensions; one more, so moments; blocks that end even and uneven
@pytest.mark.parametrize("n", [5, 40, 41, 2 * BLOCK, 3 * BLOCK + 1])
@pytest.mark.parametrize("keep", [0.9, 0.97, 4])
def test_components_equal_those_of_sklearn(n, keep) -> None:
    data = features(n, 40)
    mean, variances, directions = streamed(data).components(keep)
    expected = PCA(keep, svd_solver="full").fit(data.double().numpy())
    np.testing.assert_allclose(mean, expected.mean_, rtol=1e-10)
    np.testing.assert_allclose(variances, expected.explained_variance_, rtol=1e-8)
    signs = np.sign((directions.double().numpy() * expected.components_).sum(1))
    np.testing.assert_allclose(directions, signs[:, None] * expected.components_, atol=1e-5)


def test_moments_take_the_same_memory_whatever_the_number() -> None:
    def numbers(pca: StreamingPCA) -> int:
        return sum(t.numel() for t in vars(pca).values() if isinstance(t, torch.Tensor))

    assert numbers(streamed(features(600, 8))) == numbers(streamed(features(6000, 8)))
    assert streamed(features(600, 8)).kept is None
    assert torch.equal(streamed(features(8, 8)).kept, features(8, 8))


@pytest.mark.parametrize("n", [12, 41])  # fewer and more than there are dimensions
def test_kept_vectors_give_the_same_components(n) -> None:
    data = features(n, 40)
    expected = streamed(data).components(0.97)
    kept, overwritten = streamed(data, room=data.numel()), streamed(data, room=data.numel())
    assert torch.equal(kept.kept, data)
    for pca, overwrite in ((kept, False), (overwritten, True)):
        for ours, theirs in zip(pca.components(0.97, overwrite), expected, strict=True):
            torch.testing.assert_close(ours, theirs)
    assert torch.equal(kept._waiting, data)


def test_more_vectors_than_expected_are_taken_in() -> None:
    data = features(30, 20)
    pca = StreamingPCA(15)
    pca.add(data)
    torch.testing.assert_close(pca.components(3)[1], streamed(data).components(3)[1])


def test_no_more_components_than_the_vectors_span() -> None:
    assert len(streamed(features(4, 20)).components(16)[1]) == 3


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (torch.ones(1, 5), "at least 2"),
        (torch.ones(6, 3), "same features"),
        (torch.tensor([[0.0, 1], [1, torch.nan], [2, 2], [3, 3]]), "NaN"),
        (torch.tensor([[0.0, 1, 1], [1, torch.inf, 2]]), "NaN"),
    ],
)
def test_vectors_without_components(data, message) -> None:
    with pytest.raises(TrainingError, match=message):
        streamed(data).components(0.97)
