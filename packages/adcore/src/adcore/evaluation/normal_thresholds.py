"""Thresholds from the scores of normal images alone, each with the rate of false alarms that it stands for.

Written as `conformal:0.01`, `evt:0.001`, `quantile:0.95` or `quantile:0.95*1.4`. An image is anomalous where its score is at or
above the threshold, so every threshold lies just above the score that it comes from.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from adcore.errors import ConfigError, DataError

KINDS = ("conformal", "evt", "quantile")
FORMS = "conformal:ALPHA, evt:RATE, quantile:Q or quantile:Q*FACTOR"
TAIL, LEAST_TAIL = 0.1, 15  # evt: the highest tenth of the scores, and no fewer than this
LARGEST_RATE = 0.05  # evt: beyond it the rate is no tail; a quantile measures it
RESAMPLES = 100  # evt: of the bootstrap
NEGLIGIBLE = 1e-9  # of rounding in (n + 1)(1 - alpha)


@dataclass(frozen=True)
class NormalRule:
    """A method that needs normal scores alone; `number` is its rate or quantile."""

    kind: str
    number: float
    factor: float = 1.0

    @property
    def rate(self) -> float | None:
        """The share of normal images that it promises (conformal) or estimates (evt) above it; a quantile says nothing."""
        return None if self.kind == "quantile" else self.number

    @property
    def least(self) -> int:
        """How many normal images it needs."""
        if self.kind == "conformal":
            return math.ceil(1 / self.number - 1 - NEGLIGIBLE)
        return 2 * LEAST_TAIL if self.kind == "evt" else 1

    def check(self, count: int) -> None:
        """DataError unless `count` normal images are enough."""
        if count < self.least:
            raise DataError(
                f"{self} needs {self.least} normal images to choose the threshold on, there are {count}; add images, hold "
                "out more (--val-split from_train --val-ratio ...), or ask for a larger rate"
            )

    def choose(self, normal: np.ndarray) -> float:
        """Threshold from (N,) normal scores."""
        self.check(len(normal))
        if self.kind == "conformal":
            return conformal(normal, self.number)
        if self.kind == "quantile":
            return quantile(normal, self.number, self.factor)
        return extreme_value(normal, self.number)

    def interval(self, normal: np.ndarray) -> tuple[float, float] | None:
        """A 95 % interval of the threshold, where it is extrapolated; some seconds of work."""
        return extreme_value_interval(normal, self.number) if self.kind == "evt" else None

    def note(self, count: int, crossed: bool = False) -> str:
        """What the threshold rests on, and what it promises; `crossed`: each score is of a model of its own fold."""
        images = f"{count} normal image{'s' * (count != 1)}"
        if self.kind == "conformal" and crossed:
            return f"about {self.rate:.3g} of normal images are expected above it, from {images}, without a guarantee"
        if self.kind == "conformal":
            return f"at most {self.rate:.3g} of normal images are expected above it, from {images} (split conformal)"
        if self.kind == "evt":
            beyond = f"; {images} alone show no rate below {1 / count:.2g}" if self.rate * count < 1 else ""
            return f"{self.rate:.3g} of normal images are estimated above it, by the tail of {images}{beyond}"
        return f"{1 - self.number:.3g} of {images} are above it" + (
            f" before the factor {self.factor:g}" * (self.factor != 1)
        )

    def __str__(self) -> str:
        return f"{self.kind}:{self.number:g}" + (f"*{self.factor:g}" if self.factor != 1 else "")


def parse_rule(text: str) -> NormalRule | None:
    """The rule that a method's name says; None for a name without a colon. ConfigError for one that is none."""
    if ":" not in text:
        return None
    kind, _, rest = text.partition(":")
    number = r"(\d*\.?\d+(?:[eE][+-]?\d+)?)"
    found = re.fullmatch(rf"{number}(?:\*{number})?", rest.replace(" ", ""))
    if kind not in KINDS or not found or (found[2] and kind != "quantile"):
        raise ConfigError(f"unknown threshold method {text!r}; with a number there are {FORMS}")
    rule = NormalRule(kind, float(found[1]), float(found[2] or 1))
    if not 0 < rule.number < 1 or not 0 < rule.factor < math.inf:
        raise ConfigError(f"threshold {text}: the number lies between 0 and 1, and a factor is above 0")
    if kind == "evt" and rule.number > LARGEST_RATE:
        raise ConfigError(
            f"threshold {text}: the tail ends at {LARGEST_RATE}; for larger rates use conformal or quantile"
        )
    return rule


def conformal(normal: np.ndarray, alpha: float) -> float:
    """Split conformal prediction: the next normal image is above it with probability of at most `alpha`.

    It holds for any distribution, as long as that image is exchangeable with the N of (N,) `normal`, which must be at least
    1 / alpha - 1 (Vovk, Gammerman, Shafer, Algorithmic Learning in a Random World, 2005).
    """
    rank = math.ceil((len(normal) + 1) * (1 - alpha) - NEGLIGIBLE)
    return _above(np.sort(normal)[rank - 1])


def quantile(normal: np.ndarray, share: float, factor: float = 1.0) -> float:
    """The `share` quantile of (N,) `normal`, times `factor`; DataError for a factor on a quantile that is not positive."""
    value = float(np.quantile(normal, share))
    if factor != 1 and value <= 0:
        raise DataError(f"quantile*factor: the quantile of these scores is {value:.4g}; a factor needs a positive one")
    return _above(value * factor)


def extreme_value(normal: np.ndarray, rate: float) -> float:
    """The score that a share `rate` of normal images exceeds, from a generalised Pareto tail.

    The tail is fitted to the excesses of the highest tenth of (N,) `normal` (Pickands, Annals of Statistics 1975). DataError
    where the highest scores are all equal.
    """
    value = _level(normal, rate)
    if not np.isfinite(value):
        raise DataError("evt: the highest scores are all equal, and have no tail; use conformal or quantile")
    return _above(value)


def extreme_value_interval(normal: np.ndarray, rate: float) -> tuple[float, float] | None:
    """A 95 % interval of `extreme_value` by a seeded bootstrap; None where no resample has a tail."""
    generator = np.random.default_rng(0)
    resampled = (generator.choice(normal, len(normal)) for _ in range(RESAMPLES))
    levels = [level for sample in resampled if np.isfinite(level := _level(sample, rate))]
    return tuple(map(float, np.percentile(levels, [2.5, 97.5]))) if levels else None


def _tail(scores: np.ndarray) -> tuple[float, np.ndarray]:
    """Where the tail begins, and by how much the highest scores exceed that."""
    ordered = np.sort(scores)
    count = max(round(TAIL * len(ordered)), LEAST_TAIL)
    start = ordered[-count - 1]
    return float(start), ordered[-count:] - start


def _level(scores: np.ndarray, rate: float) -> float:
    from scipy.stats import genpareto

    start, excess = _tail(scores)
    if not np.ptp(excess) > 0:
        return math.nan
    shape, _, scale = genpareto.fit(excess / excess.mean(), floc=0)  # in units of the mean, so that the fit converges
    return start + excess.mean() * genpareto.isf(rate * len(scores) / len(excess), shape, scale=scale)


def _above(value: float) -> float:
    with np.errstate(over="ignore"):  # the caller refuses what is not finite
        return float(np.nextafter(np.float32(value), np.float32(np.inf)))
