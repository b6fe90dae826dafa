"""A bank of normal patches that is thinned to a coreset and searched for nearest neighbours: what its models share."""

from __future__ import annotations

from typing import Any, Self

import torch
from adcore.memory import trim
from adcore.model import AnomalyModel, Fit
from torch import Tensor

from adm_memory.coreset import farthest_first, random_projection
from adm_memory.neighbours import NearestNeighbours, StreamedNeighbours, search_structure

PROJECTION = 128  # d* of PatchCore's paper: dimensions in which the coreset is selected


def entries(patches: int, ratio: float) -> int:
    """How many of so many patches are kept."""
    return max(1, int(patches * ratio))


def reduced(patches: Tensor, fit: Fit) -> tuple[Tensor, torch.Generator]:
    """(N, D) patches in the dimensions in which the coreset is selected, always the same, and the fit's generator."""
    generator = torch.Generator().manual_seed(fit.plan.seed)
    wide = patches.shape[1] > 2 * PROJECTION
    return (random_projection(patches, PROJECTION, generator) if wide else patches), generator


def coreset_of(patches: Tensor, ratio: float, fit: Fit) -> Tensor | slice:
    """Indices of `ratio` of the (N, D) `patches`: greedy farthest-first selection picks them."""
    return picked(patches, entries(len(patches), ratio), fit)


def picked(patches: Tensor, count: int, fit: Fit) -> Tensor | slice:
    """Indices of `count` of the (N, D) `patches`, by greedy farthest-first selection."""
    if count == len(patches):
        return slice(None)
    features, generator = reduced(patches, fit)
    start = int(torch.randint(len(patches), (1,), generator=generator))
    return farthest_first(features, count, start, progress=lambda done, n: fit.progress("coreset", done, n))


def take_all(model: AnomalyModel, fit: Fit) -> None:
    """Let the `training_step` of a one-pass model see all images of `fit`; its `on_fit_end` is not called."""
    model.on_fit_start(fit)
    for step, batch in enumerate(fit.train_batches()):
        list(model.training_step(batch, step))


def extended(bank: Tensor, new: Tensor, count: int, fit: Fit) -> tuple[Tensor, Tensor | slice]:
    """`bank` (M, d) and `new` patches (n, d) together, and which of them are the coreset: M + `count` of them."""
    together = torch.cat([bank, new])
    return together, picked(together, len(bank) + count, fit)


class BankModel(AnomalyModel):
    """Keeps `coreset_ratio` of the patches that it sees as `memory_bank` (M, D), and searches there."""

    def __init__(self, coreset_ratio: float) -> None:
        super().__init__()
        self.coreset_ratio = coreset_ratio
        self.register_buffer("memory_bank", torch.empty(0))
        self._index: NearestNeighbours | StreamedNeighbours | None = (
            None  # search structure, made from the bank when first needed
        )

    @property
    def index(self) -> NearestNeighbours | StreamedNeighbours:
        """The bank, prepared for searching."""
        if self._index is None:
            self._index = search_structure(self.memory_bank)
            trim()
        return self._index

    def warm_up(self) -> None:
        """Warm up before the first image: fuse the backbone, index the bank of a fitted model."""
        super().warm_up()
        if not self.training and len(self.memory_bank):
            self.index  # noqa: B018 (made when first asked for)

    def on_fit_start(self, fit: Fit) -> None:
        """Forget the search structure of a bank from before."""
        self._index = None

    def coreset(self, patches: Tensor, fit: Fit) -> Tensor | slice:
        """Indices of the entries of the bank among (N, D) `patches`."""
        return coreset_of(patches, self.coreset_ratio, fit)

    def extended(self, new: Tensor, count: int, fit: Fit) -> tuple[Tensor, Tensor | slice]:
        """Bank and `new` patches (n, D) together, and which of them are the coreset: as many as the bank had, and `count`."""
        together, picks = extended(self.memory_bank, new, count, fit)
        fit.log("entries_before", len(self.memory_bank))
        fit.log("entries_after", len(self.memory_bank) + count)
        return together, picks

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        self._index = None  # the bank moves to another device or type
        return super()._apply(*args, **kwargs)
