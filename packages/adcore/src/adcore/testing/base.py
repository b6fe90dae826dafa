"""What the checks of models, datasets and backbones share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

import pytest

from adcore.plugins import Origin, discover


class Conformance:
    """Base class of the kits: known failures, and a plugin module that imports no torch.

    A check that cannot pass is named in `expected_failures` with the reason; it then has to fail, so that the entry goes
    when the reason does. `adcore check-plugin PACKAGE` runs the same checks without a test file.
    """

    expected_failures: ClassVar[dict[str, str]] = {}  # check name -> reason

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        unknown = [check for check in cls.expected_failures if not hasattr(cls, check)]
        if unknown:
            raise TypeError(f"{cls.__name__}: expected_failures names no check: {', '.join(unknown)}")

    @pytest.fixture(autouse=True)
    def _expected_failure(self, request: pytest.FixtureRequest) -> None:
        reason = self.expected_failures.get(request.node.originalname)
        if reason:
            request.applymarker(pytest.mark.xfail(reason=reason, strict=True))

    def origin(self) -> Origin:
        """The plugin that registered what is checked."""
        raise NotImplementedError

    def test_listing_imports_no_torch(self) -> None:
        """`adcore list-models` has to answer at once, so a plugin module holds cards only.

        Fails when loading this plugin alone imports torch. Fix: in plugin.py, and in the package's __init__.py, import
        nothing but adcore.cards and adcore.hookspecs; the module that the card's target names imports torch.
        """
        origin = self.origin()
        if origin.distribution != "adcore":  # adcore's own cards have a test of their own
            assert not _imports_torch(origin, os.environ.get("PYTHONPATH")), (
                f"loading the plugin module of {origin} imports torch"
            )


@cache  # once for each plugin, not for each of its cards
def _imports_torch(origin: Origin, _path: str | None) -> bool:
    """Whether a new Python that loads this plugin alone has torch."""
    others = {found.plugin for _, found in discover()} - {origin.plugin}
    code = "import sys; from adcore.plugins import load_plugins; found = load_plugins()\n"
    code += "assert not found.problems, found.problems[0].error\nprint('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ADCORE_DISABLE_PLUGINS": ",".join(sorted(others))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"the plugin cannot be loaded alone: {done.stderr.strip()}"
    return done.stdout.strip() == "True"


def check_settings(
    fields: Mapping[str, tuple[Any, Any]], meanings: Mapping[str, str], given: Mapping[str, Any] | None = None
) -> None:
    """Fail on a keyword argument without a type, a default (its own, or `given`) or a description."""
    untyped = [name for name, (annotation, _) in fields.items() if annotation is Any]
    bare = [name for name, (_, default) in fields.items() if default is ... and name not in (given or {})]
    silent = [name for name in fields if not meanings[name]]
    assert not untyped, f"settings without an annotation: {', '.join(untyped)}"
    assert not bare, f"settings without a default: {', '.join(bare)}"
    assert not silent, f"settings without a description: {', '.join(silent)}"
