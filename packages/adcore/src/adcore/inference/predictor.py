"""Predicting with a trained model from Python: `adcore.load("model.safetensors").predict("part.png").score`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adcore import artifact as artifacts
from adcore.artifact import Artifact
from adcore.cards import card_for
from adcore.data.image_io import image_from_array, read_image
from adcore.evaluation.metrics import is_anomalous
from adcore.evaluation.score import run_model
from adcore.model import AnomalyModel
from adcore.registry import register


@dataclass
class Result:
    """What a model says about one image."""

    score: float  # raw: higher is more anomalous
    anomaly_map: np.ndarray | None  # (h, w) float32, raw, at the model's input size
    threshold: float | None  # of the calibration; None when there was nothing to calibrate on
    is_anomalous: bool | None
    normalized_score: float | None  # 0.5 at the threshold, about 0 to 1 over the scores of the calibration; not clamped


class Predictor:
    """A trained model with its preprocessing and calibration."""

    def __init__(self, artifact: Artifact, device: torch.device | str = "cpu") -> None:
        self.artifact, self.device = artifact, torch.device(device)
        self.model, self.preprocess = artifact.model.to(self.device), artifact.preprocess

    @property
    def threshold(self) -> float | None:
        """The calibrated threshold on raw scores."""
        return self.artifact.calibration.get("threshold", {}).get("value")

    def predict(self, image: str | Path | np.ndarray | Tensor) -> Result:
        """Score a file, an array as `image_from_array` takes it, or a tensor (C, H, W) float32 as `read_image` gives it."""
        if isinstance(image, str | Path):
            image = read_image(Path(image), self.preprocess.channels)
        elif isinstance(image, np.ndarray):
            image = image_from_array(image, self.preprocess.channels)
        ((score, anomaly_map),) = run_model(self.model, [self.preprocess(image)], self.device)
        return self.result(score, anomaly_map)

    def result(self, score: float, anomaly_map: np.ndarray | None) -> Result:
        """A raw score with the calibration applied."""
        if self.threshold is None:
            return Result(score, anomaly_map, None, None, None)
        low, high = self.artifact.calibration["score_range"]
        normalized = 0.5 + (score - self.threshold) / max(high - low, 1e-12)
        return Result(score, anomaly_map, self.threshold, bool(is_anomalous([score], self.threshold)[0]), normalized)


def load(path: str | Path, device: str = "cpu", model: type[AnomalyModel] | None = None) -> Predictor:
    """A trained model from its artifact; ArtifactError or WeightsError says what is wrong with it.

    `model` is the class of a model that no installed package registers.
    """
    from adcore.training.device import pick_device

    if model is not None:
        register(card_for(model))
    chosen = pick_device(device)
    return Predictor(artifacts.load(path, chosen), chosen)
