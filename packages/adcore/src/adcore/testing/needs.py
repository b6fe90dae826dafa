"""Skips for tests that need what is not installed everywhere."""

from __future__ import annotations

import pytest

from adcore.errors import ConfigError
from adcore.export.graph import require_onnx


def skip_without_onnx() -> None:
    """Skip a test, or a module that calls this while it is imported, where no model can be exported."""
    try:
        require_onnx()
    except ConfigError as error:
        pytest.skip(str(error), allow_module_level=True)
