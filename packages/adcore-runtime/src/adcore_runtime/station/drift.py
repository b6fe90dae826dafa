"""Drift on the line: the images of each model are tested against its calibration, and an alarm is an event of the station."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from adcore_runtime.decisions import Result
from adcore_runtime.drift import TITLES, Alarm, Monitor
from adcore_runtime.predictor import Predictor
from adcore_runtime.station.store import Observed, Store, now

WHOLE_STATE = 200  # images after which a whole state is stored; a restart tests the images since then once more


class Watcher:
    """The monitors of those models that store statistics of their calibration; a restart finds them where the results end.

    A monitor begins anew when an operator says so, and when a model comes with other statistics than before.
    """

    def __init__(self, models: Mapping[str, Predictor], store: Store) -> None:
        self._store, self._lock = store, threading.Lock()
        stored = {name: predictor.calibration.statistics for name, predictor in models.items()}
        self._monitors = {name: Monitor(values) for name, values in stored.items() if values}
        self._since: dict[str, dict[str, str]] = {}  # model -> statistic -> when it raised its alarm
        self._unsaved: dict[str, int] = {}  # model -> images since the last whole state
        for name in self._monitors:
            self._load(name)

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the models that are watched."""
        return tuple(self._monitors)

    def observe(self, name: str, predictor: Predictor, image: Any) -> tuple[Result, dict[str, float]]:
        """The result of an image, and its statistics; none where the model is not watched."""
        return predictor.observe(image) if name in self._monitors else (predictor.predict(image), {})

    @contextmanager
    def observed(self, name: str, values: Mapping[str, float]) -> Iterator[Observed | None]:
        """Take the statistics of an image; inside, its result is stored with what this gives. None without statistics.

        An error inside means that nothing was stored: the monitor is then as if the image had not come.
        """
        if not values:
            yield None
            return
        with self._lock:
            created = now()
            alarms = self._take(name, values, created)
            told = [{"message": f"{name}: {alarm.text}", "model": name, **vars(alarm)} for alarm in alarms]
            whole = self._unsaved[name] >= WHOLE_STATE
            try:
                yield Observed(name, created, values, told, self._text(name) if whole else None)
            except BaseException:
                self._load(name)
                raise
            if whole:
                self._unsaved[name] = 0

    def reset(self, name: str) -> list[str]:
        """Acknowledge the alarms of a watched model and begin its test anew; the statistics whose alarms they were."""
        with self._lock:
            acknowledged = [alarm.statistic for alarm in self._monitors[name].alarms]
            what = ", ".join(TITLES.get(one, one) for one in acknowledged)
            message = f"{name}: {f'drift of {what} acknowledged, ' if what else ''}the test begins anew"
            self._begin(name, {"message": message, "reason": "operator", "acknowledged": acknowledged})
            return acknowledged

    def state(self) -> list[dict[str, Any]]:
        """For the page, of each model and statistic: how far it is on the way to an alarm, from 0 to 1, and its alarm."""
        with self._lock:
            return [
                {
                    "model": name,
                    "statistic": statistic,
                    "level": min(max(1 + math.log(share) / math.log(monitor.limit), 0), 1),
                    "alarm": self._alarm(name, statistic),
                }
                for name, monitor in self._monitors.items()
                for statistic, share in monitor.evidence().items()
            ]

    def _alarm(self, name: str, statistic: str) -> dict[str, Any] | None:
        found = (vars(alarm) for alarm in self._monitors[name].alarms if alarm.statistic == statistic)
        return next(({**alarm, "since": self._since[name][statistic]} for alarm in found), None)

    def _take(self, name: str, values: Mapping[str, float], created: str) -> list[Alarm]:
        alarms = self._monitors[name].update(values)
        self._since[name] |= {alarm.statistic: created for alarm in alarms}
        self._unsaved[name] += 1
        return alarms

    def _text(self, name: str) -> str:
        return json.dumps({"monitor": self._monitors[name].state(), "since": self._since[name]})

    def _load(self, name: str) -> None:
        """Bring a monitor to where the stored results end."""
        monitor, stored = self._monitors[name], self._store.monitor(name)
        if stored is None:
            self._begin(name)
        elif stored.key != monitor.key:
            message = f"{name}: other calibration statistics than before, the drift test begins anew"
            self._begin(name, {"message": message, "reason": "calibration", "acknowledged": []})
        else:
            state = json.loads(stored.state)
            monitor.restore(state["monitor"])
            self._since[name], self._unsaved[name] = state["since"], 0
            for one in stored.since:
                self._take(name, one.statistics, one.created)

    def _begin(self, name: str, told: Mapping[str, Any] | None = None) -> None:
        """Begin a new stream, in the database first; `told` are the data of the event."""
        monitor = self._monitors[name]
        fresh = json.dumps({"monitor": Monitor(monitor.calibration).state(), "since": {}})
        self._store.set_monitor(name, monitor.key, fresh, {"model": name, **told} if told else None)
        monitor.reset()
        self._since[name], self._unsaved[name] = {}, 0
