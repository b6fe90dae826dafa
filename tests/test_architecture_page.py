"""The pages about the code name what exists, and leave nothing of the contract out."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest
from adcore.model import AnomalyModel, Batch, Fit, Optimization, Prediction, Update
from adcore.training.callbacks import Callback
from torch import nn

DOCS = Path(__file__).parent.parent / "docs"
PAGE = DOCS / "02-architecture.md"
CONTRACT = DOCS / "07-writing-a-plugin.md"
NAME = re.compile(r"\b(?:adcore|adm_\w+)(?:\.\w+)*")


def resolve(name: str) -> object:
    """The module, or the attribute of one, that a dotted name is."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = import_module(".".join(parts[:length]))
        except ModuleNotFoundError as error:
            if not name.startswith(str(error.name)):
                raise
            continue
        for attribute in parts[length:]:
            found = getattr(found, attribute)
        return found
    raise ModuleNotFoundError(name)


def test_every_name_of_the_page_exists() -> None:
    text = re.sub(r"```python.*?```", "", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    names = {name for name in NAME.findall(text) if not name.startswith(("adcore.toml", "adcore.load"))}
    assert len(names) > 40
    for name in sorted(names):
        resolve(name)


def test_files_that_the_page_names_exist() -> None:
    files = re.findall(r"`((?:tests|tools|docs)/[\w./-]+)`", PAGE.read_text(encoding="utf-8"))
    assert files
    assert [file for file in files if not (PAGE.parent.parent / file).is_file()] == []


def named(word: str) -> bool:
    """Whether the reference of the contract has `word` as code."""
    text = CONTRACT.read_text(encoding="utf-8").partition("## Reference of the model contract")[2]
    return re.search(rf"`{word}\b", text) is not None


@pytest.mark.parametrize("kind", [Batch, Prediction, Update, Optimization, Fit])
def test_the_reference_has_every_field(kind) -> None:
    assert [field.name for field in fields(kind) if not named(field.name)] == []


@pytest.mark.parametrize(("kind", "base"), [(AnomalyModel, nn.Module), (Callback, object)])
def test_the_reference_has_every_method(kind, base) -> None:
    own = [name for name in vars(kind) if not name.startswith("_") and not hasattr(base, name)]
    assert len(own) > 5
    assert [name for name in own if not named(name)] == []


def test_every_hook_is_in_the_table_of_hooks() -> None:
    hookspecs = import_module("adcore.hookspecs")
    hooks = [name for name, _ in inspect.getmembers(hookspecs, inspect.isfunction) if name.startswith("adcore_")]
    text = CONTRACT.read_text(encoding="utf-8")
    assert [name for name in hooks if f"| `{name}` |" not in text] == []
