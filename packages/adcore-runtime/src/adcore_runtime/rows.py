"""What is said of an image: its row of predictions.csv, of the JSON output and of the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adcore_runtime.decisions import BAD, GOOD, REVIEW, Calibration, Result, verdict
from adcore_runtime.errors import ConfigError
from adcore_runtime.geometry import Frame
from adcore_runtime.regions import RegionRule


def parse_band(text: str) -> tuple[float, float]:
    """ "LOW,HIGH" as two raw scores; ConfigError unless both are finite and LOW is below HIGH."""
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low = high = np.nan
    if not (np.isfinite([low, high]).all() and low < high):
        raise ConfigError(f"--review-band takes LOW,HIGH, two raw scores with the lower one first, not {text!r}")
    return low, high


@dataclass(frozen=True)
class RowOptions:
    """What is said of an image besides score, decision, map and overlay."""

    regions: RegionRule | None = None
    band: tuple[float, float] | None = None  # raw scores between which a person looks at the image
    crops: bool = False  # a picture of each region
    full_size: bool = False  # maps in the size of the original images

    @classmethod
    def chosen(
        cls,
        regions: bool,
        pixel_threshold: float | None,
        min_area: float | None,
        band: str | None,
        crops: bool,
        calibration: Calibration,
        full_size: bool = False,
    ) -> RowOptions:
        """From a command line, where each option about regions asks for regions; ConfigError for what is not valid.

        `calibration` has the pixel threshold and the review band where none is given.
        """
        wanted = regions or crops or pixel_threshold is not None or min_area is not None
        return cls(
            RegionRule.chosen(pixel_threshold, min_area or 0.0, calibration.pixel_threshold) if wanted else None,
            parse_band(band) if band else calibration.review_band,
            crops,
            full_size,
        )


PLAIN = RowOptions()


def prediction_row(
    path: Path, result: Result, options: RowOptions = PLAIN, frame: Frame | None = None
) -> dict[str, Any]:
    """An image's row of predictions.csv and of the JSON output; `frame` is needed for regions."""
    row: dict[str, Any] = {
        "path": str(path),
        "score": result.score,
        "normalized_score": result.normalized_score,
        "predicted": None if result.is_anomalous is None else int(result.is_anomalous),
    }
    if options.band:
        row["verdict"] = verdict(result.score, options.band)
    if options.regions and frame:
        row["regions"] = [region.to_dict() for region in options.regions.find(result.anomaly_map, frame)]
    return row


def printed(row: Mapping[str, Any]) -> str:
    """A row as the command line prints it."""
    decision = {None: "no threshold", 0: "normal", 1: "ANOMALOUS"}[row["predicted"]]
    if "verdict" in row:
        decision = {GOOD: GOOD, REVIEW: "to look at", BAD: "BAD"}[row["verdict"]]
    line = f"{row['score']:12.6g}  {decision:12}  {row['path']}"
    if "regions" in row:
        count = len(row["regions"])
        line += f"  {count} region{'s' * (count != 1)}"
    return line
