"""Plugins that break must be reported and must not stop the others."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from types import FunctionType, ModuleType, SimpleNamespace

import pytest
from adcore import plugins, registry
from adcore.cards import BackboneCard, DatasetCard, ModelCard
from adcore.errors import ConfigError, PluginError
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
    """Pretend that modules are installed as entry points; an exception is raised, and a function called, at import."""

    def pretend(**modules: object) -> plugins.Plugins:
        points = []
        for name, module in modules.items():

            def load(module: object = module) -> object:
                if isinstance(module, BaseException):
                    raise module
                return module() if isinstance(module, FunctionType) else module

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


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("models", {"name": 5}, "ModelCard 5: name must be str, not 5"),
        ("models", {"name": "a b"}, "a name must be text without spaces, not 'a b'"),
        ("models", {"aliases": None}, "ModelCard 'toy': aliases must be tuple[str, ...], not None"),
        ("models", {"aliases": "abc"}, "aliases must be"),
        ("models", {"config": [1]}, "config must be Mapping[str, Any], not [1]"),
        ("models", {"config": {"backbone": 5}}, "config['backbone'] must be text, not 5"),
        ("models", {"epochs": "3"}, "epochs must be int, not '3'"),
        ("models", {"epochs": True}, "epochs must be int, not True"),
        ("models", {"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ("models", {"training": "often"}, "training must be"),
        ("models", {"channels": 4}, "channels must be"),
        ("models", {"size_multiple": 0}, "size_multiple must be at least 1, not 0"),
        ("models", {"year": None}, "year must be int, not None"),
        ("models", {"image_size": (1, 2, 3)}, "image_size must be int | tuple[int, int], not (1, 2, 3)"),
        ("models", {"normalization": "all"}, "normalization must be"),
        ("models", {"target": "module.Class"}, "target must be 'package.module:Class', not 'module.Class'"),
        ("datasets", {"layout": 5}, "DatasetCard 'toy': layout must be str, not 5"),
        ("backbones", {"mean": 0.5}, "BackboneCard 'toy': mean must be tuple[float, float, float], not 0.5"),
        ("backbones", {"wheel": "weights"}, "wheel must be tuple[str, str] | None, not 'weights'"),
    ],
)
def test_a_card_of_wrong_types_is_a_broken_plugin_that_names_card_and_field(
    install, run_cli, kind, changes, words
) -> None:
    right = {
        "models": card("toy"),
        "datasets": DatasetCard("toy", "toy:Toy", "Toy", "files"),
        "backbones": BackboneCard("toy", "resnet18", ("toy.pth",), "them", "MIT", 1),
    }[kind]
    module = ModuleType("toy_plugin")
    setattr(module, f"adcore_register_{kind}", hookimpl(_hook(kind, lambda: [replace(right, **changes)])))
    (problem,) = install(bad=module, good=plugin([card("good")])).problems
    assert words in problem.error
    for command in ("list-models", "list-datasets", "list-backbones"):
        code, out, err = run_cli(command, "--json")
        assert code == 0
        json.loads(out)
        assert f"plugin 'bad' (dist-bad 1.2) is broken and was left out: PluginError: {problem.error[13:]}" in err


def _hook(kind: str, answer: FunctionType) -> FunctionType:
    answer.__name__ = f"adcore_register_{kind}"
    return answer


def test_right_cards_of_every_allowed_shape_are_accepted(install) -> None:
    shapes = {"image_size": (64, 96), "crop_size": None, "aliases": ["other"], "config": {"a": object()}}
    assert not install(good=plugin([card("toy", **shapes)])).problems


def test_ctrl_c_while_a_plugin_loads_ends_the_command_and_names_the_plugin(install, run_cli) -> None:
    with pytest.raises(KeyboardInterrupt, match=r"while plugin 'bad' \(dist-bad 1.2\) was loading"):
        install(bad=KeyboardInterrupt())
    code, out, err = run_cli("list-models")
    assert (code, out) == (130, "")
    assert err.strip() == "adcore: interrupted while plugin 'bad' (dist-bad 1.2) was loading"


def test_what_a_plugin_prints_at_import_stays_out_of_stdout(install, run_cli, capsys) -> None:
    def chatty() -> ModuleType:
        print("hello from the plugin")
        return plugin([card("toy")])

    install(chatty=chatty)
    assert "hello" in capsys.readouterr().err
    plugins.load_plugins.cache_clear()
    code, out, err = run_cli("list-models", "--json")
    assert code == 0
    assert [entry["name"] for entry in json.loads(out)] == ["toy"]
    assert "hello from the plugin" in err


@pytest.mark.parametrize("name", ["bad", "bad-small", "dist-bad"])
def test_an_unknown_model_called_like_a_broken_plugin_says_that_and_why(install, run_cli, name) -> None:
    install(bad=ImportError("no module named zzz"), good=plugin([card("toy")]))
    code, _, err = run_cli("train", name, "--data", "mvtec:nowhere")
    assert code == 2
    assert err.startswith(f"adcore: unknown model '{name}': plugin 'bad' (dist-bad 1.2) is broken")
    assert "ImportError: no module named zzz" in err
    assert err.count("\n") == 1


def test_any_unknown_name_beside_a_broken_plugin_names_that(install) -> None:
    install(bad=ImportError("no module named zzz"), good=plugin([card("toy")]))
    with pytest.raises(ConfigError) as caught:
        registry.model_card("tov")
    message = str(caught.value)
    assert message.startswith("unknown model 'tov'; did you mean toy? See: adcore list-models; ")
    assert "plugin 'bad' (dist-bad 1.2) is broken and was left out: ImportError: no module named zzz" in message


def test_a_target_that_cannot_be_imported_names_the_plugin(install, run_cli) -> None:
    install(good=plugin([card("toy", target="no_such_module:Model")]))
    code, _, err = run_cli("info", "toy")
    assert code == 2
    assert "model 'toy' of plugin 'good' (dist-good 1.2) cannot be used: no_such_module:Model: ModuleNotFound" in err


def test_hints_name_commands_that_list_what_there_is(run_cli) -> None:
    code, _, err = run_cli("train", "padim", "--data", "mvtek:nowhere")
    assert code == 2
    assert "unknown dataset 'mvtek'; did you mean mvtec" in err
    assert "See: adcore list-datasets" in err
    code, out, _ = run_cli("list-datasets")
    assert code == 0
    assert "mvtec: MVTec AD (also: mvtec-ad, mvtecad)" in out
    assert [entry["name"] for entry in json.loads(run_cli("list-datasets", "--json")[1])] == [
        "mvtec",
        "visa",
        "btad",
        "hdmap",
        "folder",
    ]
    code, out, _ = run_cli("list-backbones")
    assert code == 0
    assert out == run_cli("backbones", "list")[1]
    (resnet,) = (entry for entry in json.loads(run_cli("list-backbones", "--json")[1]) if entry["name"] == "resnet18")
    assert "padim-resnet18" in resnet["models"]
    with pytest.raises(ConfigError, match="See: adcore list-backbones"):
        registry.backbone_card("resnet19")


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
    for (
        point,
        _,
    ) in plugins.discover():  # of importlib.metadata, or of the backport that another library may have installed
        assert (type(point).__name__, point.group) == ("EntryPoint", "adcore")


def test_listing_and_importing_adcore_import_no_torch() -> None:
    code = "import sys, adcore; from adcore.cli.list_models import command; command([], standalone_mode=False); "
    code += "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
