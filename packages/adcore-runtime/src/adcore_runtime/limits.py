"""How many pixels an image may have: refused from its header, before memory is taken for it."""

from __future__ import annotations

import os
from collections.abc import Callable

from adcore_runtime.errors import ConfigError

LOWEST_PIXEL_LIMIT, PIXEL_LIMIT = 1_000_000, 100_000_000  # width times height that are always, and usually, allowed
Limit = Callable[[], int]  # gives max_image_pixels; asked for large images alone, since a setting has to be looked up


def pixel_limit() -> int:
    """max_image_pixels: the variable ADCORE_MAX_IMAGE_PIXELS, or 100 million. Raises ConfigError for another value."""
    text = os.environ.get("ADCORE_MAX_IMAGE_PIXELS") or str(PIXEL_LIMIT)
    if not text.isdecimal() or int(text) < LOWEST_PIXEL_LIMIT:
        raise ConfigError(
            f"ADCORE_MAX_IMAGE_PIXELS must be a whole number from {LOWEST_PIXEL_LIMIT}, not {text!r}; correct or unset it"
        )
    return int(text)
