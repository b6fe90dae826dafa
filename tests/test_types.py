"""The public names are typed: every parameter and result has an annotation, and a type checker follows `adcore.NAME`."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import adcore
import pytest

PROGRAM = """
import adcore
from adcore import AnomalyModel, ModelCard, Prediction

reveal_type(adcore.train("mvtec:data", "part", "padim"))
reveal_type(adcore.load("model.safetensors").predict("part.png").score)
reveal_type(ModelCard.epochs)
adcore.register(5)  # wrong
"""


def functions(name: str) -> list:
    """The public functions of a public name: itself, or the methods that a class defines."""
    value = getattr(adcore, name)
    if not inspect.isclass(value):
        return [value] if inspect.isfunction(value) else []
    return [member for key, member in vars(value).items() if inspect.isfunction(member) and not key.startswith("_")]


@pytest.mark.parametrize("name", [name for name in adcore.__all__ if name != "__version__"])
def test_public_names_are_annotated(name) -> None:
    for function in functions(name):
        parameters = [p for p in inspect.signature(function).parameters if p != "self"]
        missing = {*parameters, "return"} - function.__annotations__.keys()
        assert not missing, f"{function.__qualname__} has no annotation for {sorted(missing)}"


def test_type_checkers_see_the_names_that_load_on_first_use() -> None:
    tree = ast.parse(Path(adcore.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert seen == adcore._LAZY
    assert (Path(adcore.__file__).parent / "py.typed").is_file()


def test_annotations_of_the_model_can_be_evaluated() -> None:
    assert get_type_hints(adcore.AnomalyModel.forward)["return"] is adcore.Prediction


@pytest.mark.slow
def test_a_type_checker_understands_a_program(tmp_path) -> None:
    pytest.importorskip("mypy", reason="pip install mypy")
    (tmp_path / "program.py").write_text(PROGRAM)
    options = ["--ignore-missing-imports", "--follow-imports=silent"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "program.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert 'Revealed type is "adcore.run_results.RunResult | list[adcore.run_results.RunResult]"' in done.stdout
    assert 'Revealed type is "float"' in done.stdout
    assert 'program.py:8: error: Argument 1 to "register"' in done.stdout
