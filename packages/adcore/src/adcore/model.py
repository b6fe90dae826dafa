"""What a model author writes: `AnomalyModel`, and the small objects that pass between model, data and trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from adcore.errors import ConfigError, DataError, NotFittedError

if TYPE_CHECKING:
    from adcore.cards import ModelCard
    from adcore.training.plan import Plan
    from adcore.training.processes import Processes, Share


@dataclass
class Batch:
    """Preprocessed images with their labels, as the model sees them in training."""

    images: Tensor  # (B, C, H, W) float32, C = 3 unless the model was set up for other channels
    labels: Tensor  # (B,) int64, 0 normal, 1 anomalous
    masks: Tensor  # (B, H, W) bool, all False where there is none
    has_mask: Tensor  # (B,) bool
    paths: list[str]
    categories: list[str] = field(default_factory=list)
    extra: dict[str, list[Any]] = field(default_factory=dict)  # what the reader adds to each image: views, prompts, ...
    seen: list[np.ndarray] | None = None  # (H, W) bool of each image: the pixels that count; None: all
    share: Share | None = None  # where several processes train: the part of the whole batch that these images are
    processes: Processes | None = None  # those that train, where there are several

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its tensors on `device`."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory; torch's DataLoader asks for it."""
        return self._each(Tensor.pin_memory)

    def drawn(self, draw: Callable[[int], tuple[Tensor, ...]], copies: int = 1) -> tuple[Tensor, ...]:
        """What `draw(n)` draws for n images, each tensor (copies * n, ...): here for these images.

        Where several processes share a batch, each draws for all of it and keeps its part, so that an image gets the same
        random numbers with any number of processes.
        """
        if self.share is None:
            return draw(len(self.images))
        part = slice(self.share.start, self.share.start + self.share.count)
        drawn = draw(self.share.total)
        return tuple(t.unflatten(0, (copies, self.share.total))[:, part].flatten(0, 1) for t in drawn)

    def total(self, number: Tensor) -> Tensor:
        """The sum of `number` over all parts of the batch, without a gradient."""
        return number if self.share is None else self.processes.add(number.detach().clone())

    def mean(self, values: Tensor, where: Tensor | None = None) -> Tensor:
        """The mean of `values` over all parts of the batch, of those `where` (bool, broadcast) is True; 0 if there are none.

        For a loss; no value is read. A plain mean over images, or over pixels of all images, does not need it.
        """
        where = (torch.ones_like(values, dtype=torch.bool) if where is None else where).expand_as(values)
        total, count = torch.where(where, values, 0).sum(), where.sum(dtype=torch.double)
        mean = total / self.total(count).clamp(min=1).to(values.dtype)
        return mean if self.share is None else mean / self.share.weight

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return replace(
            self, **{name: change(getattr(self, name)) for name in ("images", "labels", "masks", "has_mask")}
        )


@dataclass
class Prediction:
    """Raw result: higher is more anomalous; no threshold, no normalisation, no clamping."""

    score: Tensor  # (B,) image-level anomaly score
    anomaly_map: Tensor | None = None  # (B, H, W), the size of the input; None for image-level models


@dataclass
class Update:
    """One optimizer step that a model asks for: minimise `loss` with the optimizer called `optimizer`."""

    loss: Tensor  # scalar
    optimizer: str = "main"
    logs: dict[str, float | Tensor] = field(default_factory=dict)


@dataclass
class Optimization:
    """An optimizer with what belongs to it."""

    optimizer: torch.optim.Optimizer
    scheduler: Any | None = None  # anything with step()
    interval: str = "epoch"  # the scheduler steps each "epoch" or each "step"
    clip_norm: float | None = None  # largest total gradient norm


@dataclass
class Fit:
    """The running fit, as the model's hooks see it."""

    plan: Plan
    device: torch.device
    num_images: int  # training images; of a one-pass model with tiles all tiles
    train_batches: Callable[[], Iterable[Batch]]  # one pass over the images (a tile of each), in fixed order
    val_batches: Callable[[], Iterable[Batch]] | None  # the same over the validation images, where there are any
    log: Callable[[str, float], None]  # a value for the progress bar, the logs and `logged` in result.json
    progress: Callable[[str, int, int], None]  # (description, done, total), for long work inside a hook
    epoch: int = 0  # epochs done
    step: int = 0  # batches done; the whole fit sees plan.total_steps of them


_ROI_MASK: ContextVar[np.ndarray | None] = ContextVar("roi_mask", default=None)  # each thread has its own


@contextmanager
def counting(mask: np.ndarray | None) -> Iterator[None]:
    """Inside, `mask` (H, W) bool is the `roi_mask` of every model in this thread."""
    token = _ROI_MASK.set(mask)
    try:
        yield
    finally:
        _ROI_MASK.reset(token)


class AnomalyModel(nn.Module):
    """Base class of all models.

    `__init__` keyword arguments are the configuration: annotate them (constraints through `Annotated[int, Field(ge=1)]`),
    give each a default, and they are checked and documented for you. Everything that training learns must be a parameter
    or a registered buffer: that is what the artifact stores. A buffer may change its shape in training.
    """

    card: ModelCard | None = None
    config: ClassVar[dict[str, Any]] = {}
    fitted: bool = False  # set by the trainer and by loading
    cannot_add: str = (
        "it keeps no bank of patches to add images to; train it again with the new images"  # see `add_normal`
    )
    divisible: bool = False  # whether several processes can train it: see `training_step` and `merge`
    group: int = (
        1  # images that `forward` gets at once on a CPU; above 1 each must have, to the last bit, what it has alone
    )

    def __call__(self, images: Tensor) -> Prediction:
        if not self.fitted:
            name = self.card.name if self.card else type(self).__name__
            raise NotFittedError(f"{name} is not trained yet; train it, or load a trained model with adcore.load")
        return super().__call__(images)

    @property
    def roi_mask(self) -> np.ndarray | None:
        """(H, W) bool in a prediction with a region of interest: the pixels that score and map are of; None: all."""
        return _ROI_MASK.get()

    def forward(self, images: Tensor) -> Prediction:
        """Score preprocessed images (B, 3, H, W) float32."""
        raise NotImplementedError

    def export_module(self) -> nn.Module:
        """What `adcore export` traces: images (N, C, H, W) -> (score (N,), anomaly_map (N, H, W) or None).

        The base class calls `forward`. Return a module of your own where `forward` has loops, branches or shapes that depend
        on values or on the number of images.
        """
        return _Forward(self)

    def warm_up(self) -> None:
        """Warm up before the first image. The base class calls the `warm_up` of every submodule that has one."""
        for part in self.modules():
            if part is not self and hasattr(part, "warm_up"):
                part.warm_up()

    @property
    def one_pass(self) -> bool:
        """Whether the model learns in one pass over the images, without optimizers: it defines no `configure_optimizers`."""
        return type(self).configure_optimizers is AnomalyModel.configure_optimizers

    def check_run(self, images: int, size: tuple[int, int]) -> None:
        """Refuse a run before anything starts: ConfigError where the model cannot learn from `images` images of `size`
        (height, width), WeightsError or DataError where a file or folder that a setting names is missing.

        The model may have been built without memory for its weights.
        """

    def training_step(self, batch: Batch, step: int) -> Iterator[Update]:
        """Learn from one batch; yield an Update for every optimizer step wanted, nothing for one-pass models.

        The trainer steps the optimizer before it asks for the next Update, so alternating models stay plain code. On a CPU it
        gives a one-pass model batches of one image.

        A `divisible` model may get a part of each batch, in each of several processes. Its losses must be means over images, or
        use `batch.mean`, and what it draws comes from `batch.drawn`; batch norm and dropout need nothing.
        """
        raise NotImplementedError

    def configure_optimizers(self, plan: Plan) -> dict[str, Optimization]:
        """Optimizers by name; `plan.optimization(...)` applies the user's overrides. One-pass models do not define it.

        A scheduler with interval "step" steps `plan.optimizer_steps` times in a fit that yields one Update a batch.
        """
        return {}

    def on_fit_start(self, fit: Fit) -> None:
        """Before the first batch: allocate buffers, gather statistics."""

    def merge(self, processes: Processes) -> None:
        """Bring together, in the first process, what a `divisible` one-pass model has found in each, in a part of the images.

        The parts follow one another in the order in which one process would see the images. There `on_fit_end` comes next.
        """
        raise NotImplementedError

    def on_epoch_end(self, fit: Fit) -> None:
        """After each epoch's last batch."""

    def on_validation_start(self, fit: Fit) -> None:
        """Before the model is asked for predictions in the middle of a fit."""

    def on_fit_end(self, fit: Fit) -> None:
        """After the last batch: build what prediction needs (coreset, quantiles)."""

    def add_normal(self, fit: Fit) -> None:
        """Learn the normal images of `fit.train_batches()` beside all that a fitted model learned before.

        The same images give the same model. The base class refuses with a ConfigError, whose reason is `cannot_add`.
        """
        name = self.card.name if self.card else type(self).__name__
        raise ConfigError(f"{name} cannot learn images after its training: {self.cannot_add}")


class BatchModel(AnomalyModel):
    """Base class of models whose images score one another: they learn nothing, and an image has no score alone.

    Such a result is transductive: it holds for the images that were scored together. The card says `training="none"`; no label
    and no training image is ever seen.
    """

    cannot_add = "it learns from no image, but compares those of a folder with one another"

    def score_all(self, images: Iterable[Tensor]) -> Iterator[Prediction]:
        """One Prediction, score (1,) and anomaly_map (1, H, W) or None, for each of `images`, in their order.

        `images` are preprocessed, (C, H, W), and are read anew each time one goes through them, so that they need not be kept.
        Their order must not change a score beyond rounding. Raises DataError where they are too few.
        """
        raise NotImplementedError

    def forward(self, images: Tensor) -> Prediction:
        """Refused with a DataError."""
        raise DataError(
            f"{self.card.name if self.card else type(self).__name__} compares the images of a folder with one another and has "
            "no score for one alone; give a folder to adcore predict or adcore evaluate"
        )


class _Forward(nn.Module):
    """A model's `forward` with tensors alone."""

    def __init__(self, model: AnomalyModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        prediction = self.model(images)
        return prediction.score, prediction.anomaly_map
