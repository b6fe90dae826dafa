"""How many images a model sees at once where nothing is optimised: in one-pass training and in prediction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

    from adcore.model import Batch


def one_at_a_time(device: torch.device | str) -> bool:
    """Whether a model on `device` gets its images one at a time: on a CPU, and not elsewhere.

    Libraries sum in another order for another batch size, and an image's score must not depend, not even in its last bit,
    on the images beside it. On a CPU a larger batch also takes more memory and saves little time.
    """
    return str(device).partition(":")[0] == "cpu"


def split_batch(images: Tensor) -> Sequence[Tensor]:
    """A batch (B, ...) as the batches that a frozen network gets: B of one image on a CPU, else the batch itself.

    A graph that is being exported takes the batch as it is.
    """
    from torch.compiler import is_compiling

    if is_compiling() or not one_at_a_time(images.device) or len(images) == 1:
        return (images,)
    return images.split(1)


def parts_of(batch: Batch) -> Iterator[tuple[Tensor, list[np.ndarray] | None]]:
    """The images of a training batch as `split_batch` gives them, each part with the pixels that count (Batch.seen)."""
    start = 0
    for images in split_batch(batch.images):
        yield images, None if batch.seen is None else batch.seen[start : start + len(images)]
        start += len(images)
