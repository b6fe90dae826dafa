"""Errors a user can cause: each message is one line that names the culprit and the next thing to try."""

from difflib import get_close_matches

from adcore_runtime.errors import AdcoreError, ArtifactError, ConfigError, DataError

__all__ = [
    "AdcoreError",
    "ArtifactError",
    "ConfigError",
    "DataError",
    "ExportError",
    "NotFittedError",
    "PluginError",
    "TrainingError",
    "WeightsError",
    "suggest",
]


class WeightsError(AdcoreError):
    """Backbone weights are missing or wrong; the message says what would be accepted and where."""


class PluginError(AdcoreError):
    """An installed plugin breaks the contract; the distribution and its version are in the message."""


class NotFittedError(AdcoreError):
    """The model was asked for a prediction before it was trained."""


class ExportError(AdcoreError):
    """A model cannot be exported, or its exported form gives other results; nothing was written."""


class TrainingError(AdcoreError):
    """Training cannot go on (such as a NaN loss); the step and the images are in the message."""


def suggest(word: str, choices: list[str]) -> str:
    """ "; did you mean ...?" with the nearest choices, or nothing."""
    near = get_close_matches(word, choices, n=3, cutoff=0.5) or [c for c in choices if word and word in c][:3]
    return f"; did you mean {' or '.join(near)}?" if near else ""
