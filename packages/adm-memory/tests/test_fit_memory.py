"""What the one-pass fits hold at a time, counted in the storage of the tensors that are alive."""

from __future__ import annotations

import weakref

import pytest
import torch
from adcore.testing import tiny_batches
from adcore.training.plan import Plan
from adcore.training.trainer import Trainer
from adm_memory.dfkde import DFKDE
from adm_memory.dfm import DFM
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

IMAGES = 200


class Alive(TorchDispatchMode):
    """Counts bytes of all tensors made inside it; `peak` is the most that were alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: list[weakref.ref] = []
        self.given: set[int] = set()  # storages that were there before
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        known = {ref().untyped_storage().data_ptr() for ref in self.tensors if ref() is not None}
        inputs = [x.untyped_storage().data_ptr() for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        self.given |= {pointer for pointer in inputs if pointer not in known}
        made = [x for x in tree_leaves(result) if isinstance(x, torch.Tensor)]
        self.tensors = [ref for ref in self.tensors if ref() is not None]
        self.tensors += [weakref.ref(x) for x in made if x.untyped_storage().data_ptr() not in self.given]
        storages = [ref().untyped_storage() for ref in self.tensors]
        self.peak = max(self.peak, sum({s.data_ptr(): s.nbytes() for s in storages}.values()))
        return result


class Features(nn.Module):
    """In place of a backbone: for each image (B, 3, h, w) a map (B, channels, side, side) that follows from it alone."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.shape = (channels, side, side)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        seeds = (images.double().mean((1, 2, 3)) * 1e9).long().tolist()
        return [torch.stack([torch.randn(self.shape, generator=torch.Generator().manual_seed(s)) for s in seeds])]


def peak(model: torch.nn.Module, count: int) -> int:
    """Bytes alive at once in the fit on `count` images, beside the images themselves."""
    batches = tiny_batches(count, (16, 16), 4)
    with Alive() as alive:
        Trainer(model, Plan(), batches, count).run()
    return alive.peak


@pytest.mark.parametrize("score", ["fre", "nll"])
def test_dfm_takes_little_more_than_the_features_once(score) -> None:
    model = DFM("resnet18", "layer3", "random", score=score)
    model.extractor = Features(1024, 16)  # as resnet50 has them at 256 px; pooled by 4 they are 16,384 numbers
    assert peak(model, IMAGES) < 1.2 * IMAGES * 16384 * 4
    assert model.directions.shape[1] == 16384


def test_dfkde_takes_little_more_than_the_features_once() -> None:
    model = DFKDE("resnet18", "layer4", "random")
    model.extractor = Features(2048, 1)
    products = 2 * IMAGES**2 * 8  # of features with each other, and their eigenvectors; pooled features are small
    assert peak(model, IMAGES) < 1.2 * IMAGES * 2048 * 4 + products
    assert model.points.shape == (IMAGES, 16)


def test_dfm_takes_the_same_for_twice_the_images() -> None:
    def of(count: int) -> int:
        model = DFM("resnet18", "layer3", "random", pooling=1)
        model.extractor = Features(16, 2)
        return peak(model, count)

    assert of(1200) == of(600)
