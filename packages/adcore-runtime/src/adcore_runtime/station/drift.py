"""Drift on the line: the images of each model are tested against its calibration, and an alarm is an event of the station."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from adcore_runtime.decisions import Result
from adcore_runtime.drift import Monitor
from adcore_runtime.predictor import Predictor
from adcore_runtime.station.store import Store

DRIFT = "drift"  # kind of the event


class Watcher:
    """The monitors of those models that store statistics of their calibration; each start of a station begins anew."""

    def __init__(self, models: Mapping[str, Predictor], store: Store) -> None:
        stored = {name: predictor.calibration.statistics for name, predictor in models.items()}
        self._monitors = {name: Monitor(values) for name, values in stored.items() if values}
        self._store = store

    def observe(self, name: str, predictor: Predictor, image: Any) -> tuple[Result, dict[str, float]]:
        """The result of an image, and its statistics; none where the model is not watched."""
        return predictor.observe(image) if name in self._monitors else (predictor.predict(image), {})

    def update(self, name: str, values: Mapping[str, float]) -> None:
        """Take the statistics of an image whose result is stored, and store the alarms that it raises."""
        if not values:
            return
        for alarm in self._monitors[name].update(values):
            self._store.event(DRIFT, {"message": f"{name}: {alarm.text}", "model": name, **vars(alarm)})

    def state(self) -> list[dict[str, Any]]:
        """For the page, of each model and statistic: how far its evidence is on the way to an alarm, from 0 to 1."""
        return [
            {
                "model": name,
                "statistic": statistic,
                "level": min(max(1 + math.log(share) / math.log(monitor.limit), 0), 1),
            }
            for name, monitor in self._monitors.items()
            for statistic, share in monitor.evidence().items()
        ]
