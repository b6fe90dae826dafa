"""Frozen networks that several models have in common, run once for an image."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class FrozenFeatures(nn.Module):
    """Base class of the feature extractors: the outputs of some layers of a network, `net`, which is frozen or trained.

    `indices` are the layers in the network's own terms, and `settings` what else decides the outputs beside the weights.
    """

    net: nn.Module
    frozen = True
    indices: Sequence[Hashable]
    settings: tuple[Hashable, ...] = ()
    source: SharedRun | None = None

    def run(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> one output for each of `indices`."""
        raise NotImplementedError

    def outputs(self, images: Tensor) -> list[Tensor]:
        """As `run`; where the network is shared, what it gave for these very images is not computed anew."""
        return self.source(images, self.indices) if self.source else self.run(images)

    def gives_all_of(self, other: FrozenFeatures) -> bool:
        """Whether this network is frozen and has all layers and the very weights that `other` needs."""
        if type(self) is not type(other) or not (self.frozen and other.frozen) or self.settings != other.settings:
            return False
        own, wanted = self.net.state_dict(), other.net.state_dict()
        return (
            set(other.indices) <= set(self.indices)
            and wanted.keys() <= own.keys()
            and all(torch.equal(tensor, own[key]) for key, tensor in wanted.items())
        )


class SharedRun:
    """Runs a network for all that share it; inside `remembering` it keeps what it gave last.

    Images are known by the identity of their tensor: a model that changes them first gets features of its own.
    """

    def __init__(self, lead: FrozenFeatures) -> None:
        self.lead, self.remembers = lead, False
        self.last: tuple[Tensor, dict[Hashable, Tensor]] | None = None

    def __call__(self, images: Tensor, indices: Sequence[Hashable]) -> list[Tensor]:
        last = self.last  # read once: another thread may replace it
        if last is None or last[0] is not images:
            last = images, dict(zip(self.lead.indices, self.lead.run(images), strict=True))
            self.last = last if self.remembers else None
        return [last[1][index] for index in indices]


@contextmanager
def remembering(runs: Sequence[SharedRun]) -> Iterator[None]:
    """Inside, each of `runs` keeps what it gave last; the images must not be changed in place."""
    for run in runs:
        run.remembers = True
    try:
        yield
    finally:
        for run in runs:
            run.remembers, run.last = False, None


def share(models: Iterable[nn.Module]) -> list[SharedRun]:
    """Let the models' extractors with equal frozen networks run one of them; what they then share.

    Of two extractors, the one with more layers runs for both. Calling it again, after weights have changed, starts anew.
    """
    extractors = [part for model in models for part in model.modules() if isinstance(part, FrozenFeatures)]
    runs: list[SharedRun] = []
    for extractor in sorted(extractors, key=lambda one: -len(set(one.indices))):
        extractor.source = next((run for run in runs if run.lead.gives_all_of(extractor)), None)
        if extractor.source is None and extractor.frozen:
            extractor.source = SharedRun(extractor)
            runs.append(extractor.source)
    used = [one.source for one in extractors if one.source and one is not one.source.lead]
    for run in runs:
        if run not in used:
            run.lead.source = None
    return [run for run in runs if run in used]
