"""Drift: a sequential test of whether new images are still like those of the calibration, with a stated rate of false alarms.

Each statistic of an image (score, brightness, ...) becomes a conformal p-value: its rank among the calibration's values and all
that came since. While calibration and stream are exchangeable these are independent and uniform, so that money which bets
against that grows to 1/a with a probability of at most a, however long the stream is (Ville's inequality; Vovk, Gammerman,
Shafer, Algorithmic Learning in a Random World, 2022, part III). The rate is divided by the number of statistics (Bonferroni).
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from adcore_runtime.errors import ConfigError

TITLES = {  # statistic -> in words
    "score": "score",
    "distance": "distance from the normal images (median of the map)",
    "brightness": "brightness",
    "contrast": "contrast",
    "sharpness": "sharpness",
    "red": "share of red",
    "blue": "share of blue",
}
ALPHA = 0.01  # the rate of false alarms, over a whole stream
STORED = 500  # images whose statistics a model file keeps
RECENT = 20  # images of the stream that the direction is told from
SLOPES, POWERS = (0.5, 1.0), (0.5, 0.2)  # bets: 1 + s (1 - 2p), which small shifts win, and k p^(k - 1), for large ones
STRIP = 1 << 21  # pixels of an image that are measured at a time
STATE = 1  # version of `Monitor.state`; raise it with any change of the bets or of what is kept
FIRST = 100  # t + FIRST: the part of the idle money that begins to bet is half of its inverse


def image_statistics(planes: np.ndarray) -> dict[str, float]:
    """Statistics of a model's input (C, h, w) float32 before its normalisation; the shares of colours where C is 3.

    Brightness is the mean and contrast the deviation of the gray image. Sharpness is the deviation of its Laplacian over that,
    so that neither light nor contrast changes it.
    """
    means = planes.mean((1, 2), dtype=np.float64)
    contrast, edges = _deviations(planes)
    found = {"brightness": float(means.mean()), "contrast": contrast}
    found["sharpness"] = edges / contrast if contrast > 0 else 0.0
    if len(planes) == 3:
        total = float(means.sum())
        shares = means / total if total > 0 else np.full(3, 1 / 3)
        found |= {"red": float(shares[0]), "blue": float(shares[2])}
    return found


def _deviations(planes: np.ndarray) -> tuple[float, float]:
    """Deviations of the gray image of (C, h, w) and of its Laplacian (0 where it has no pixel).

    In strips of rows: in float64 the planes of a large image would take several times its own memory.
    """
    rows, parts = max(2, STRIP // planes.shape[2]), []  # (pixels, mean, variance) of each strip of both
    for start in range(0, planes.shape[1], rows):
        first = max(0, start - 1)  # the Laplacian needs a row above and below
        gray = planes[:, first : start + rows + 1].mean(0, dtype=np.float64)
        inner = gray[1:-1, 1:-1]
        laplacian = gray[:-2, 1:-1] + gray[2:, 1:-1] + gray[1:-1, :-2] + gray[1:-1, 2:] - 4 * inner
        parts.append([_moments(gray[start - first :][:rows]), _moments(laplacian)])
    return tuple(map(_deviation, np.moveaxis(np.array(parts), 1, 0)))


def _moments(values: np.ndarray) -> tuple[int, float, float]:
    return (values.size, values.mean(), values.var()) if values.size else (0, 0.0, 0.0)


def _deviation(moments: np.ndarray) -> float:
    """Of all values together, from number, mean and variance of each part (parts, 3)."""
    count, mean, variance = moments.T
    if not count.sum():
        return 0.0
    share = count / count.sum()
    return float(np.sqrt(share @ (variance + (mean - share @ mean) ** 2)))  # of one part exactly its own


def statistics(planes: np.ndarray, score: float, anomaly_map: np.ndarray | None) -> dict[str, float]:
    """`image_statistics`, with the score and, where there is a map (h, w), its median."""
    found = {"score": float(score)}
    if anomaly_map is not None:
        found["distance"] = float(np.median(anomaly_map))
    return {name: _rounded(value) for name, value in (found | image_statistics(planes)).items()}


def stored(rows: Sequence[Mapping[str, float]], seed: int = 0) -> dict[str, list[float]]:
    """What a model file keeps of its normal calibration images: the sorted values of each statistic that all of them have.

    Of more than STORED images it keeps so many, drawn by the seed.
    """
    if len(rows) > STORED:
        chosen = np.random.default_rng(seed).choice(len(rows), STORED, replace=False)
        rows = [rows[i] for i in chosen]
    names = [name for name in TITLES if rows and all(name in row for row in rows)]
    return {name: sorted(row[name] for row in rows) for name in names}


@dataclass(frozen=True)
class Alarm:
    """What drifted, when, and in which direction."""

    statistic: str  # a key of TITLES
    image: int  # the number of the image in the stream, from 1 on
    direction: str  # "higher" or "lower"
    recent: float  # median of the last images
    calibration: float  # median of the calibration's

    @property
    def text(self) -> str:
        """The alarm as one line."""
        return (
            f"{TITLES[self.statistic]} is {self.direction} than in the calibration images: median {self.recent:.4g} of the "
            f"last images, {self.calibration:.4g} there"
        )


class Monitor:
    """Watches a stream of images against the values of the calibration, which are `stored`.

    At most `alpha` of the streams that are exchangeable with the calibration ever raise an alarm. Each statistic has one, and
    stays silent then until `reset`. Raises ConfigError without values, and for an alpha outside (0, 1).
    """

    def __init__(self, calibration: Mapping[str, Sequence[float]], alpha: float = ALPHA) -> None:
        if not 0 < alpha < 1:
            raise ConfigError(f"alpha must lie between 0 and 1, not {alpha}")
        if not calibration:
            raise ConfigError("the model stores no statistics of its calibration images")
        self.alpha, self.calibration = alpha, dict(calibration)
        self.reset()

    @property
    def limit(self) -> float:
        """The money at which a statistic raises its alarm."""
        return len(self.calibration) / self.alpha

    def reset(self) -> None:
        """Begin a new stream."""
        self.images, self.alarms, self._random = 0, [], np.random.Generator(np.random.PCG64(0))
        self._tests = {name: _Test(values) for name, values in self.calibration.items()}

    def update(self, values: Mapping[str, float]) -> list[Alarm]:
        """Take the next image's `statistics`; the alarms that it raises."""
        self.images += 1
        raised = []
        for name, test in self._tests.items():
            tie = self._random.random()
            if test.money >= self.limit or name not in values:
                continue
            test.update(values[name], tie)
            if test.money >= self.limit:
                direction = "higher" if test.up >= test.down else "lower"
                medians = float(np.median(test.recent)), float(np.median(self.calibration[name]))
                raised.append(Alarm(name, self.images, direction, *medians))
        self.alarms += raised
        return raised

    @property
    def key(self) -> str:
        """What `state` depends on besides the stream, as a digest: alpha, and the calibration's values in their order."""
        text = json.dumps([STATE, self.alpha, {name: list(values) for name, values in self.calibration.items()}])
        return hashlib.sha256(text.encode()).hexdigest()

    def state(self) -> dict[str, Any]:
        """How far the stream is, plain, for JSON."""
        return {
            "images": self.images,
            "alarms": [asdict(alarm) for alarm in self.alarms],
            "random": self._random.bit_generator.state,
            "tests": {name: test.state() for name, test in self._tests.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on, to the last bit, where a monitor with the same `key` was."""
        self.images, self.alarms = state["images"], [Alarm(**one) for one in state["alarms"]]
        self._random.bit_generator.state = state["random"]
        for name, test in self._tests.items():
            test.restore(state["tests"][name])

    def evidence(self) -> dict[str, float]:
        """The money of each statistic, whose bets began with 1, over the limit: 1 and more is an alarm."""
        return {name: test.money / self.limit for name, test in self._tests.items()}


class _Test:
    """The test of one statistic: bets on values that are higher, or lower, from any image of the stream on."""

    def __init__(self, calibration: Sequence[float]) -> None:
        rounded = [_rounded(value) for value in calibration]
        self.values, self.counts = np.unique(np.array(rounded, np.float64), return_counts=True)
        self.idle, self.seen = 1.0, 0
        self.bets = np.zeros((2, len(SLOPES) + len(POWERS)))  # money that bets on higher, and on lower values
        self.recent: deque[float] = deque(maxlen=RECENT)

    @property
    def up(self) -> float:
        return float(self.bets[0].sum())

    @property
    def down(self) -> float:
        return float(self.bets[1].sum())

    @property
    def money(self) -> float:
        return self.idle + self.up + self.down

    def update(self, value: float, tie: float) -> None:
        value = _rounded(value)
        self.recent.append(value)
        p = self._rank(value, tie)
        begins = self.idle / (2 * (self.seen + FIRST))  # a change may come at any time, so some money waits for ever
        self.idle -= begins
        self.bets = (self.bets + begins / self.bets.size) * np.stack([_payoffs(p), _payoffs(1 - p)])
        self.seen += 1

    def state(self) -> dict[str, Any]:
        return {
            "values": self.values.tolist(),
            "counts": self.counts.tolist(),
            "idle": self.idle,
            "seen": self.seen,
            "bets": self.bets.tolist(),
            "recent": list(self.recent),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.values, self.counts = np.array(state["values"], np.float64), np.array(state["counts"], np.int64)
        self.idle, self.seen, self.bets = state["idle"], state["seen"], np.array(state["bets"], np.float64)
        self.recent = deque(state["recent"], maxlen=RECENT)

    def _rank(self, value: float, tie: float) -> float:
        """The p-value of a value among all before it, small where it is high; `tie` in [0, 1) is its place among equals."""
        place = int(np.searchsorted(self.values, value))
        if place == len(self.values) or self.values[place] != value:
            self.values, self.counts = np.insert(self.values, place, value), np.insert(self.counts, place, 0)
        self.counts[place] += 1
        above = int(self.counts[place + 1 :].sum())
        return (above + tie * int(self.counts[place])) / int(self.counts.sum())


def _payoffs(p: float) -> np.ndarray:
    """What each bet on small p-values pays for one; their integrals over [0, 1] are 1."""
    p = min(max(p, 1e-9), 1.0)
    return np.array([*(1 + s * (1 - 2 * p) for s in SLOPES), *(k * p ** (k - 1) for k in POWERS)])


def _rounded(value: float) -> float:
    """Four significant digits: rounding of libraries does not count, and the different values of a long stream are few."""
    return float(f"{value:.4g}")
