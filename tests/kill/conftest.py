"""The marker of the kill tests."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "kill: kills processes at random moments; all with `pytest -m kill tests/kill`")
