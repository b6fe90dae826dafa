"""Fixtures that the tests of adcore share."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images: ADCORE_TEST_DATA, or ../shared/data as seen from the repository."""
    folder = Path(os.environ.get("ADCORE_TEST_DATA") or Path(__file__).resolve().parents[4] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real test images in {folder}; set ADCORE_TEST_DATA to their folder")
    return folder


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
