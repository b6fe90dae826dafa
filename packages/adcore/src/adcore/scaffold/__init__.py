"""A complete plugin package from a name and a kind: templates in which @name@ and the like are filled in."""

from __future__ import annotations

import keyword
import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path

from adcore import __version__
from adcore.errors import ConfigError
from adcore.files import removed_on_failure
from adcore.scaffold import backbone, common, dataset, model

LONGEST = 30  # letters of a name
COMMON = {
    "pyproject.toml": common.PYPROJECT,
    "README.md": common.README,
    "LICENSE": common.LICENSE,
    ".gitignore": "__pycache__/\n*.egg-info/\n.pytest_cache/\n.ruff_cache/\nbuild/\ndist/\nresults/\n",
    ".github/workflows/ci.yml": common.CI,
    "src/@module@/__init__.py": '"""@class@, @what@ for adcore."""\n',
}
FILES = {  # kind -> path -> text
    "model": {
        **COMMON,
        "src/@module@/plugin.py": model.PLUGIN,
        "src/@module@/model.py": model.MODEL,
        "tests/test_conformance.py": model.CONFORMANCE,
    },
    "dataset": {
        **COMMON,
        "src/@module@/plugin.py": dataset.PLUGIN,
        "src/@module@/reader.py": dataset.READER,
        "tests/test_conformance.py": dataset.CONFORMANCE,
    },
    "backbone": {
        **COMMON,
        "src/@module@/plugin.py": backbone.PLUGIN,
        "tests/test_conformance.py": backbone.CONFORMANCE,
    },
}
WORDS = {  # kind -> what it is, and how it is used
    "model": (
        "an anomaly detection model",
        "adcore info @name@\nadcore train @name@ --data mvtec:DATA --category CATEGORY",
    ),
    "dataset": ("a dataset layout", "adcore info @name@\nadcore train padim --data @name@:DATA"),
    "backbone": (
        "a pretrained backbone",
        "adcore list-backbones\nadcore train padim --set backbone=@name@ --data mvtec:DATA",
    ),
}


def write_plugin(name: str, parent: str | Path = ".", year: int = 2026, kind: str = "model") -> Path:
    """Write a complete package for a model, dataset or backbone (`kind`) into `parent`/`name`; returns the folder.

    It is written whole or not at all. Raises ConfigError when the name cannot be used or the folder exists.
    """
    module = _module_name(name, kind)
    folder = Path(parent) / name
    if folder.exists():
        raise ConfigError(f"{folder} exists already; choose another name, or another folder with --out")
    what, use = WORDS[kind]
    major, minor = __version__.split(".")[:2]
    values = {
        "name": name,
        "kind": kind,
        "what": what,
        "use": use.replace("@name@", name),
        "module": module,
        "class": "".join(part[:1].upper() + part[1:] for part in name.split("-")),
        "year": str(year),
        "lowest": f"{major}.{minor}",
        "next": f"{major}.{int(minor) + 1}",
    }
    temporary = folder.with_name(f".{name}.{os.getpid()}.tmp")
    with removed_on_failure(temporary):
        for path, text in FILES[kind].items():
            target = temporary / _fill(path, values)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(_fill(text, values), encoding="utf-8")
        temporary.rename(folder)
    return folder


def _fill(text: str, values: dict[str, str]) -> str:
    return re.sub(r"@(\w+)@", lambda found: values[found[1]], text)


def _module_name(name: str, kind: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise ConfigError(f"'{name}' cannot be a package's name; use small letters, digits and hyphens: my-model")
    if len(name) > LONGEST:
        raise ConfigError(f"'{name}' is too long for a package's name; use {LONGEST} letters at most")
    module = name.replace("-", "_")
    if keyword.iskeyword(module) or module in sys.stdlib_module_names or find_spec(module):
        raise ConfigError(f"'{name}' is taken: Python has a module '{module}' already; choose another name")
    from adcore.registry import list_backbones, list_datasets, list_models

    cards = {"model": list_models, "dataset": list_datasets, "backbone": list_backbones}[kind]()
    if any(name in (card.name, *card.aliases) for card in cards):
        raise ConfigError(f"'{name}' is taken by an installed {kind}; choose another name (see: adcore list-{kind}s)")
    return module
