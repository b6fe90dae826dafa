"""What a model returns, checked before it becomes a score: a model that breaks the contract is named, never trusted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from adcore.errors import AdcoreError, DataError, PluginError
from adcore.maps import within
from adcore.memory import is_out_of_memory
from adcore.model import AnomalyModel, Prediction, counting


def checked_prediction(
    model: AnomalyModel,
    images: Tensor,
    names: Sequence[str],
    predict: Callable[[Tensor], Prediction] | None = None,
    seen: np.ndarray | None = None,
) -> Prediction:
    """`model(images)` for (B, 3, H, W): score (B,) float32 and anomaly_map (B, H, W) float32 or None, all finite.

    `names` are those of the images, for errors; `predict` is called in place of `model`. `seen` (H, W) bool: the pixels that
    count, outside of which a map has its lowest value; None: all. Raises PluginError for anything else
    that the model returns or raises, DataError for a value that is not finite, AdcoreError when memory does not suffice.
    """
    try:
        with counting(seen):
            prediction = (predict or model)(images)
    except AdcoreError:
        raise
    except (Exception, SystemExit) as error:  # a third party's model may fail in any way; Ctrl-C still passes
        if is_out_of_memory(error):
            raise AdcoreError(
                f"{names[0]}: not enough memory on {images.device} for {describe(model)} to score it at "
                f"{images.shape[-1]}x{images.shape[-2]} px; end other programs, or train with a smaller image_size"
            ) from None
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise PluginError(f"{describe(model)} failed on {names[0]}: {reason} (--debug shows where)") from error
    wrong = _violation(prediction, images)
    if wrong:
        raise PluginError(
            f"{describe(model)} returned {wrong}; forward must return adcore.Prediction(score, anomaly_map) with "
            f"floating-point tensors of shapes ({len(images)},) and {(len(images), *images.shape[-2:])} or None"
        )
    score, maps = prediction.score.float(), prediction.anomaly_map
    maps = None if maps is None else maps.float()
    for what, values in (("score", score), ("anomaly map", maps)):
        finite = None if values is None else values.isfinite().reshape(len(images), -1).all(1)  # (B,)
        if finite is not None and not finite.all():
            name = names[int(finite.int().argmin())]
            raise DataError(
                f"{name}: the {what} of {describe(model)} is NaN or infinite; look for extreme values in that image, "
                "or train the model again, with a smaller learning rate if it has one"
            )
    return Prediction(score, None if maps is None else within(maps, seen))


def describe(model: AnomalyModel) -> str:
    """ "model NAME of PACKAGE VERSION", or the class where no installed package has it."""
    from adcore.registry import model_origin

    if model.card is not None:
        try:
            return f"model '{model.card.name}' of {model_origin(model.card.name)}"
        except AdcoreError:
            pass
    return f"model {type(model).__module__}.{type(model).__qualname__}"


def _violation(prediction: object, images: Tensor) -> str:
    """What is wrong with the kind, types and shapes of what a model returned; empty if nothing is."""
    if not isinstance(prediction, Prediction):
        return "nothing" if prediction is None else f"a {type(prediction).__name__}"
    shapes = {"score": (len(images),), "anomaly_map": (len(images), *images.shape[-2:])}
    for field, shape in shapes.items():
        value = getattr(prediction, field)
        if value is None and field == "anomaly_map":
            continue
        if not isinstance(value, Tensor):
            return f"{field} as {type(value).__name__}"
        if not value.is_floating_point():
            return f"{field} of type {value.dtype}"
        if tuple(value.shape) != shape:
            return f"{field} of shape {tuple(value.shape)}"
    return ""
