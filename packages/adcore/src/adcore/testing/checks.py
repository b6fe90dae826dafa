"""The conformance kit without a test file: what `adcore check-plugin` runs."""

from __future__ import annotations

import inspect
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

from adcore.errors import ConfigError

KITS = {
    "model": "ModelConformance",
    "batch model": "BatchConformance",
    "dataset": "DatasetConformance",
    "backbone": "BackboneConformance",
}


@dataclass(frozen=True)
class Outcome:
    """One check of one model, dataset or backbone: "ok", "failed" or "skipped", with the reason of a failure in one line."""

    name: str
    check: str
    result: str
    reason: str = ""


def check_names(kind: str = "model") -> list[str]:
    """Names of all checks of a kind ("model", ...), in the order in which they run."""
    bases = reversed(_kit(kind).__mro__)
    return list(dict.fromkeys(name for base in bases for name in vars(base) if name.startswith("test_")))


def explain(check: str, kind: str = "model") -> str:
    """What a failure of the check means, and how to fix it."""
    return inspect.getdoc(getattr(_kit(kind), check)) or ""


def _kit(kind: str) -> type:
    return getattr(import_module("adcore.testing"), KITS[kind])


class _Collector:
    """A pytest plugin that keeps what each check of each class gave."""

    def __init__(self, names: dict[str, str]) -> None:
        self.names, self.outcomes = names, {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        *_, class_name, check = report.nodeid.split("::")
        key = (self.names[class_name], check)
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            reason = (crash.message if crash else str(report.longrepr)).strip().splitlines()[0]
            self.outcomes[key] = Outcome(*key, "failed", reason.removeprefix("AssertionError: "))
        elif key not in self.outcomes and (report.skipped or report.when == "call"):
            self.outcomes[key] = Outcome(*key, "skipped" if report.skipped else "ok")


def check_models(names: Iterable[str], checks: Iterable[str] = (), **attributes: Any) -> list[Outcome]:
    """Run the checks (all, or those named) on installed models.

    `attributes` (image_size, images, epochs, overrides) are those of ModelConformance. ConfigError without pytest.
    """
    return run_checks("model", dict.fromkeys(names, attributes), checks)


def run_checks(kind: str, attributes: Mapping[str, Mapping[str, Any]], checks: Iterable[str] = ()) -> list[Outcome]:
    """Run the checks (all, or those named) of a kind on what is installed: name -> attributes of its test class."""
    try:
        import pytest
    except ImportError:
        raise ConfigError("checking a plugin needs pytest: pip install pytest") from None
    classes = {f"Test{number}": name for number, name in enumerate(attributes)}
    code = [f"from adcore.testing import {KITS[kind]}\n"]
    for title, name in classes.items():
        values = {kind.split()[-1]: name, **attributes[name]}
        code += [f"\nclass {title}({KITS[kind]}):\n", *(f"    {key} = {value!r}\n" for key, value in values.items())]
    collector = _Collector(classes)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"test_{Path(folder).name}.py"  # a name of its own: pytest keeps modules by name
        file.write_text("".join(code), encoding="utf-8")
        (Path(folder) / "pytest.ini").write_text("[pytest]\n")
        options = ["-p", "no:terminal", "-p", "no:cacheprovider", "-p", "no:faulthandler", "--capture=sys"]
        options += ["--noconftest", "--import-mode=importlib", "--rootdir", folder, "-c", f"{folder}/pytest.ini"]
        targets = [f"{file}::{title}::{check}" for title in classes for check in checks] or [str(file)]
        with mock.patch.dict(os.environ, {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}):
            code = pytest.main([*options, *targets], plugins=[collector])
    if code not in (0, 1) or not collector.outcomes:
        raise ConfigError(f"the checks could not be run (pytest ended with {code}); is pytest up to date?")
    return list(collector.outcomes.values())
