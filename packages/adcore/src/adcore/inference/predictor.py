"""Predicting with a trained model from Python: `adcore.load("model.safetensors").predict("part.png").score`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from adcore_runtime.decisions import Calibration, Result
from adcore_runtime.drift import statistics
from adcore_runtime.roi import Roi
from torch import Tensor

from adcore import artifact as artifacts
from adcore.artifact import Artifact
from adcore.cards import card_for
from adcore.data.dataset import prepare
from adcore.data.image_io import image_from_array, read_image
from adcore.data.roi import read_roi
from adcore.errors import ConfigError, DataError
from adcore.evaluation.score import score_image
from adcore.model import AnomalyModel
from adcore.preprocess import EACH
from adcore.registry import create_model, list_models, register
from adcore.request import choose_model

__all__ = ["Predictor", "Result", "load"]


class Predictor:
    """A trained model with its preprocessing and calibration."""

    def __init__(self, artifact: Artifact, device: torch.device | str = "cpu") -> None:
        self.artifact, self.device = artifact, torch.device(device)
        self.model, self.preprocess = artifact.model.to(self.device), artifact.preprocess

    @property
    def threshold(self) -> float | None:
        """The calibrated threshold on raw scores."""
        return self.artifact.threshold

    @property
    def calibration(self) -> Calibration:
        """What turns raw scores into decisions."""
        return Calibration.from_dict(self.artifact.calibration)

    @property
    def normal_maps(self) -> tuple[float, float] | None:
        """Median and highest value of normal images' anomaly maps in the calibration; None where they are not known."""
        return self.calibration.map_range

    def predict(self, image: str | Path | np.ndarray | Tensor, roi: str | Path | np.ndarray | None = None) -> Result:
        """Score a file, or a decoded image as a camera gives it.

        An array is (H, W), (H, W, 1), (H, W, 3) or of the model's channels: uint8 is divided by 255, uint16 by 65535, as in
        files; float32 has to have the range of the training images. A tensor is (C, H, W) float32, as `read_image` gives
        it. `roi`: the region of interest of this image, a mask's file or (H, W) bool, for a model that was trained with one
        for each. Raises DataError for anything else, and for NaN or infinite values.
        """
        return self._scored(image, roi)[0]

    def observe(
        self, image: str | Path | np.ndarray | Tensor, roi: str | Path | np.ndarray | None = None
    ) -> tuple[Result, dict[str, float]]:
        """`predict`, and the image's statistics for `adcore_runtime.drift.Monitor`."""
        result, inputs = self._scored(image, roi)
        planes = self.preprocess.without_normalization(inputs)
        return result, statistics(planes, result.score, result.anomaly_map)

    def _scored(
        self, image: str | Path | np.ndarray | Tensor, roi: str | Path | np.ndarray | None
    ) -> tuple[Result, Tensor]:
        """The result, and the model's input (C, h, w)."""
        name = "the image"
        if isinstance(image, str | Path):
            name, image = str(image), read_image(Path(image), self.preprocess.channels)
        elif isinstance(image, np.ndarray):
            image = image_from_array(image, self.preprocess.channels)
        elif image.ndim != 3 or image.dtype != torch.float32 or not image.isfinite().all():
            raise DataError(
                f"a tensor must be (C, H, W) float32 without NaN, not {tuple(image.shape)} {image.dtype}; or give an array"
            )
        view = self.preprocess
        if roi is not None:
            if view.roi != EACH:
                raise ConfigError("this model was not trained with a region of interest for each image; leave roi out")
            view = view.of(read_roi(Path(roi)) if isinstance(roi, str | Path) else Roi.of(roi))
        inputs, _ = prepare(image, None, view, name)
        seen = view.seen(image.shape[-2], image.shape[-1])
        return self.result(*score_image(self.model, inputs, view, self.device, name, seen=seen)), inputs

    def result(self, score: float, anomaly_map: np.ndarray | None) -> Result:
        """A raw score with the calibration applied."""
        return self.calibration.result(score, anomaly_map)


def load(
    path: str | Path,
    device: str = "cpu",
    model: type[AnomalyModel] | None = None,
    category: str | None = None,
) -> Predictor:
    """A trained model from its artifact; ArtifactError or WeightsError says what is wrong with it.

    `model` is the class of a model that no installed package registers; `category` chooses the threshold of one category,
    of a model that has one for each. In place of a file the name of a model that learns nothing, such as musc, gives that model
    with its default settings, without a threshold.
    """
    from adcore.training.device import pick_device

    if model is not None:
        register(card_for(model))
    chosen = pick_device(device)
    artifact = _untrained(path) or artifacts.load(path, chosen)
    return Predictor(artifact if category is None else artifact.of_category(category), chosen)


def _untrained(path: str | Path) -> Artifact | None:
    """The model that learns nothing and is called `path`; None for anything else, and where there is such a file."""
    if Path(path).exists():
        return None
    names = {name for card in list_models() if card.training == "none" for name in (card.name, *card.aliases)}
    if str(path) not in names:
        return None
    choice = choose_model(str(path), {})
    model = create_model(choice.card.name, **choice.config).eval()
    model.fitted = True
    return Artifact(model, choice.preprocess)
