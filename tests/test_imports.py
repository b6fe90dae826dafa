"""Who imports whom: no circles in any package, and in adcore no lower room imports an upper one (read with `ast`, not run)."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGES = sorted(
    path for path in Path(__file__).parents[1].glob("packages/*/src/*") if (path / "__init__.py").is_file()
)

# The rooms of adcore from the lowest to the highest; those of one line do not import one another. A room is a module or a
# folder; a file of a folder may be a room of its own.
ROOMS = [
    "adcore errors cards maps memory",
    "files",
    "batching card_checks config hookspecs model preprocess ray_cluster settings spellings tensorfile "
    "backbones.cards bundle_manifest bundle_target data.builtin",
    "builtin child header data",
    "plugins",
    "plugin_probe registry",
    "backbones evaluation scaffold",
    "artifact bundle",
    "training",
    "request",
    "inference",
    "prepared export",
    "recalibration run_results testing training_run",
    "cross_calibration ensemble several update",
    "pipeline",
    "api experiments",
    "cli",
    "__main__",
]


def modules(package: Path) -> dict[str, Path]:
    """Module name -> file."""
    found = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(source: str, name: str, known: dict[str, Path]) -> set[str]:
    """Modules of `known` that a module imports, in functions too, but not under `if TYPE_CHECKING`."""
    found = set()
    nodes: list[ast.AST] = [ast.parse(source)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            nodes += node.orelse
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= members & known.keys() or {node.module}
    return found & known.keys() - {name}


def graph(package: Path) -> dict[str, set[str]]:
    """Module -> modules of the same package that it imports."""
    known = modules(package)
    return {name: imported(path.read_text(encoding="utf-8"), name, known) for name, path in known.items()}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_no_modules_import_one_another_in_a_circle(package: Path) -> None:
    try:
        TopologicalSorter(graph(package)).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")


def test_a_circle_is_seen_in_functions_and_not_in_types(tmp_path: Path) -> None:
    known = dict.fromkeys(["p.a", "p.b", "p.c"], tmp_path)
    code = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import p.c\ndef f():\n    from p import b\n"
    assert imported(code, "p.a", known) == {"p.b"}


def room(module: str, rooms: dict[str, int]) -> str:
    """The room that a module belongs to: the longest name that fits."""
    name = module.removeprefix("adcore.")
    fitting = [known for known in rooms if name == known or name.startswith(f"{known}.")]
    assert fitting, f"{module} belongs to no room: add it to ROOMS"
    return max(fitting, key=len)


def test_no_room_of_adcore_imports_an_upper_one() -> None:
    (package,) = (path for path in PACKAGES if path.name == "adcore")
    rooms = {name: height for height, line in enumerate(ROOMS) for name in line.split()}
    wrong = []
    for module, others in graph(package).items():
        here = room(module, rooms)
        for other in others:
            there = room(other, rooms)
            if there != here and rooms[there] >= rooms[here]:
                wrong.append(f"{module} (room {here}) imports {other} (room {there})")
    assert not wrong, "\n".join(sorted(wrong))
