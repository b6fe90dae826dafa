"""Fixtures that the tests of adcore share."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import pytest


@pytest.fixture
def run_cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process: (exit code, stdout, stderr)."""
    from adcore.cli import main

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["adcore", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture(autouse=True)
def _clean_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees another's globals, the developer's environment, or weights in the developer's home."""
    settings = import_module("adcore.settings")  # the package's attribute of that name may be the function

    monkeypatch.setattr(settings, "_globals", {})
    for key in settings._KEYS:
        monkeypatch.delenv(f"ADCORE_{key.upper()}", raising=False)
