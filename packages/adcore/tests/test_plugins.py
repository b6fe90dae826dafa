"""Plugins that break must be reported and must not stop the others."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from types import ModuleType, SimpleNamespace

import pytest
from adcore import plugins
from adcore.cards import ModelCard
from adcore.errors import PluginError
from adcore.hookspecs import hookimpl


def card(name: str, **changes: object) -> ModelCard:
    values = {
        "target": "nowhere:Model",
        "family": "toy",
        "title": "Toy",
        "paper": "none",
        "year": 2020,
        "summary": "toy",
    }
    return ModelCard(name=name, **{**values, **changes})


def plugin(answer: object) -> ModuleType:
    """A module whose model hook returns `answer`, or calls it."""
    module = ModuleType("toy_plugin")

    @hookimpl
    def adcore_register_models() -> object:
        return answer() if callable(answer) else answer

    module.adcore_register_models = adcore_register_models
    return module


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch):
    """Pretend that modules are installed as entry points; an exception stands for one at import."""

    def pretend(**modules: object) -> plugins.Plugins:
        points = []
        for name, module in modules.items():

            def load(module: object = module) -> object:
                if isinstance(module, BaseException):
                    raise module
                return module

            points.append(
                SimpleNamespace(name=name, dist=SimpleNamespace(name=f"dist-{name}", version="1.2"), load=load)
            )
        monkeypatch.setattr(plugins, "entry_points", lambda group: points)
        monkeypatch.setattr(plugins, "check_compatible", lambda origin: None)
        plugins.load_plugins.cache_clear()
        return plugins.load_plugins()

    yield pretend
    plugins.load_plugins.cache_clear()


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (ImportError("no module named zzz"), "ImportError: no module named zzz"),
        (SystemExit(3), "SystemExit: 3"),
        (plugin(lambda: 1 / 0), "ZeroDivisionError"),
        (plugin("padim"), "must return a list of ModelCard, not str"),
        (plugin([{"name": "x"}]), "must return a list of ModelCard, not a list of dict"),
        (ModuleType("empty"), "implements no adcore hook"),
    ],
)
def test_a_broken_plugin_is_reported_and_the_other_works(install, broken, words) -> None:
    found = install(bad=broken, good=plugin([card("toy")]))
    assert list(found.cards[ModelCard]) == ["toy"]
    (problem,) = found.problems
    assert words in str(problem)
    assert "dist-bad 1.2" in str(problem)
    assert "\n" not in str(problem)


def test_a_hook_with_a_misspelt_name_is_a_problem(install) -> None:
    module = ModuleType("typo")
    module.adcore_register_model = hookimpl(lambda: [card("toy")])
    assert "adcore_register_model" in install(bad=module).problems[0].error


def test_a_duplicate_name_is_an_error_that_names_both(install) -> None:
    found = install(first=plugin([card("toy"), card("other")]), second=plugin([card("toy")]))
    with pytest.raises(PluginError, match=r"'toy' .*dist-first 1\.2.* and .*dist-second 1\.2"):
        found.check_unique(ModelCard, "toy")
    found.check_unique(ModelCard, "other")


def test_an_alias_may_not_take_the_name_of_another_model(install) -> None:
    found = install(first=plugin([card("toy")]), second=plugin([card("new", aliases=("toy",))]))
    with pytest.raises(PluginError, match="'toy'"):
        found.check_unique(ModelCard, "toy")


def test_disabled_plugins_are_not_imported(install, monkeypatch) -> None:
    monkeypatch.setenv("ADCORE_DISABLE_PLUGINS", "bad, dist-worse")
    found = install(bad=ImportError("x"), worse=ImportError("y"), good=plugin([card("toy")]))
    assert not found.problems
    assert list(found.cards[ModelCard]) == ["toy"]


def test_a_plugin_for_another_adcore_is_refused(monkeypatch) -> None:
    monkeypatch.setattr("importlib.metadata.requires", lambda name: ["torch", "adcore>=7,<8"])
    with pytest.raises(PluginError, match="needs adcore<8,>=7"):
        plugins.check_compatible(plugins.Origin("toy", "toy-package", "1"))
    monkeypatch.setattr("importlib.metadata.requires", lambda name: ["adcore-extras>=7", "adcore>=0.1"])
    plugins.check_compatible(plugins.Origin("toy", "toy-package", "1"))


def test_entry_points_are_ordinary() -> None:
    assert isinstance(plugins.discover(), list)
    assert all(isinstance(point, EntryPoint) for point, _ in plugins.discover())


def test_listing_and_importing_adcore_import_no_torch() -> None:
    code = "import sys, adcore; from adcore.cli.list_models import command; command([], standalone_mode=False); "
    code += "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
