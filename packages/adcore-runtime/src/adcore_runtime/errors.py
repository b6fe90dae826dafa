"""Errors a user can cause: each message is one line that names the culprit and the next thing to try."""


class AdcoreError(Exception):
    """Base of every error the command line prints as one line with exit code 2."""


class DataError(AdcoreError):
    """An image, a mask or a dataset folder is not what it should be; the path is in the message."""


class ConfigError(AdcoreError):
    """A name, a key or a value that the user gave is not valid; the valid ones are in the message."""


class ArtifactError(AdcoreError):
    """A model file cannot be loaded: truncated, foreign, newer, or not made by adcore."""
