"""Images that a model scores together: read as often as it goes through them, and never all in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from adcore.data.dataset import ImageDataset, Item, Skipped, read_ahead
from adcore.errors import DataError
from adcore.evaluation.outputs import checked_prediction
from adcore.files import sha256_file
from adcore.model import BatchModel, Prediction

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
        yield item, checked_prediction(model, image, [str(item.sample.image_path)], following)


def pool_record(images: Sequence[Any]) -> dict[str, Any]:
    """What result.json says of the scored images that a result holds for: how many, and a digest of their files."""
    digests = sorted(sha256_file(image.sample.image_path) for image in images)
    return {"images": len(digests), "sha256": hashlib.sha256("".join(digests).encode()).hexdigest()}
