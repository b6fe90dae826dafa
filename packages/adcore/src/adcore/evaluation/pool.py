"""Images that a model scores together: read as often as it goes through them, and never all in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adcore.data.dataset import ImageDataset, Item, Skipped
from adcore.data.read_ahead import read_ahead
from adcore.errors import DataError
from adcore.evaluation.outputs import checked_prediction
from adcore.files import sha256_file
from adcore.model import AnomalyModel, BatchModel, Prediction

PROTOCOL = "transductive"  # of the results of a BatchModel


class Pool:
    """The preprocessed images (C, H, W) of a dataset; what cannot be read raises DataError, or is left out."""

    def __init__(self, dataset: ImageDataset, device: torch.device | str, skip_bad: bool) -> None:
        self.dataset, self.device, self.skip_bad = dataset, device, skip_bad

    def __iter__(self) -> Iterator[Tensor]:
        return (item.image.to(self.device) for item in self.items() if isinstance(item, Item))

    def items(self) -> Iterator[Item | Skipped]:
        """One for each sample."""
        for item in read_ahead(map(self.dataset.fetch, range(len(self.dataset)))):
            if isinstance(item, Skipped) and not self.skip_bad:
                raise DataError(item.reason)
            yield item


def score_pool(model: BatchModel, pool: Pool) -> Iterator[tuple[Item, Prediction] | Skipped]:
    """Each image with its checked prediction, or why it was left out, in order."""
    predictions = iter(model.score_all(pool))

    def following(_: Tensor) -> Prediction:
        return next(predictions)

    for item in pool.items():
        if isinstance(item, Skipped):
            yield item
            continue
        image = item.image[None].to(pool.device)
        yield item, checked_prediction(model, image, [str(item.sample.image_path)], following, item.seen)


def protocol_record(model: AnomalyModel, paths: Iterable[Path]) -> dict[str, Any]:
    """What a result says of the files that scored one another: the protocol, and how many with a digest of them.

    Names and order of the files do not matter. Empty for a model that is no BatchModel.
    """
    if not isinstance(model, BatchModel):
        return {}
    digests = sorted(sha256_file(path) for path in paths)
    pool = {"images": len(digests), "sha256": hashlib.sha256("".join(digests).encode()).hexdigest()}
    return {"protocol": PROTOCOL, "pool": pool}
