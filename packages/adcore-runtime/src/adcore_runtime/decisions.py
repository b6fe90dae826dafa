"""From a raw score to a decision: threshold, normalised score, and three verdicts where there is a review band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from adcore_runtime.errors import ConfigError

GOOD, REVIEW, BAD = "good", "review", "bad"  # verdicts with a review band


@dataclass
class Result:
    """The prediction for one image."""

    score: float  # raw: higher is more anomalous
    anomaly_map: np.ndarray | None  # (h, w) float32, raw, at the model's input size
    threshold: float | None  # of the calibration; None when there was nothing to calibrate on
    is_anomalous: bool | None
    normalized_score: float | None  # 0.5 at the threshold, about 0 to 1 over the scores of the calibration; not clamped
    verdict: str | None = None  # GOOD, REVIEW or BAD, where the model has a review band
    size: tuple[int, int] | None = None  # height, width of the original image, where a file or an array was given


@dataclass(frozen=True)
class Calibration:
    """What turns raw scores into decisions; each is None where the calibration had no image for it."""

    threshold: float | None = None
    score_range: tuple[float, float] | None = None  # lowest, highest
    map_range: tuple[float, float] | None = None  # median, highest value of the normal images' maps
    review_band: tuple[float, float] | None = None  # raw scores between which a person looks at the image
    categories: Mapping[str, float] = field(default_factory=dict)  # thresholds of single categories
    statistics: Mapping[str, Sequence[float]] = field(default_factory=dict)  # of the normal images, for drift

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Calibration:
        """The calibration as a model file stores it."""
        threshold = stored.get("threshold")
        pairs = (tuple(stored.get(key) or ()) or None for key in ("score_range", "map_range", "review_band"))
        categories = {name: one["value"] for name, one in (stored.get("categories") or {}).items()}
        return cls(threshold["value"] if threshold else None, *pairs, categories, stored.get("statistics") or {})

    @property
    def numbers(self) -> list[float | None]:
        """All of them."""
        pairs = (self.score_range, self.map_range, self.review_band)
        lists = [pair or () for pair in pairs] + list(self.statistics.values())
        return [self.threshold, *(number for one in lists for number in one), *self.categories.values()]

    def of_category(self, category: str) -> Calibration:
        """The same with the threshold of one category; ConfigError where it has none of its own."""
        if category not in self.categories:
            known = ", ".join(sorted(self.categories))
            raise ConfigError(
                f"this model has no threshold of its own for category {category!r}; "
                + (
                    f"it has some for {known}"
                    if known
                    else "adcore threshold --category all gives it one for each category"
                )
            )
        return self.with_threshold(self.categories[category])

    @property
    def pixel_threshold(self) -> float | None:
        """Just above the highest value that a normal image's map reached; None where there was no map."""
        return float(np.nextafter(np.float32(self.map_range[1]), np.float32(np.inf))) if self.map_range else None

    def with_threshold(self, threshold: float) -> Calibration:
        """The same with another threshold."""
        return replace(self, threshold=threshold)

    def result(self, score: float, anomaly_map: np.ndarray | None) -> Result:
        """A raw score with threshold, normalisation and review band applied."""
        answer = verdict(score, self.review_band) if self.review_band else None
        if self.threshold is None:
            return Result(score, anomaly_map, None, None, None, answer)
        decision = bool(is_anomalous([score], self.threshold)[0])
        normalized = None
        if self.score_range is not None:  # else only the threshold was given
            low, high = self.score_range
            normalized = 0.5 + (score - self.threshold) / max(high - low, 1e-12)
        return Result(score, anomaly_map, self.threshold, decision, normalized, answer)


def is_anomalous(scores: Any, threshold: float) -> np.ndarray:
    """The decision rule used everywhere: anomalous where score >= threshold; (N,) bool."""
    return np.asarray(scores, np.float64) >= threshold


def verdict(score: float, band: tuple[float, float]) -> str:
    """`GOOD` below the band (low, high), `BAD` from its upper end on, `REVIEW` between: a person looks at the image."""
    return GOOD if score < band[0] else BAD if score >= band[1] else REVIEW
