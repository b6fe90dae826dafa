"""What an import of adcore, and the start of a command, leave behind for other code; each case in a Python of its own."""

import ast
from pathlib import Path

import pytest
import torch
from adcore.testing.site import run_python, write_distribution

SOURCES = Path(__file__).resolve().parents[2]
TORCH = tuple(int(number) for number in torch.__version__.split(".")[:2])

# What a third-party package may do with torch's compiler, torchvision and timm; raises where it meets anything but them.
USE = """
def use():
    import sys, torch, timm, torchvision
    from torch._dynamo.utils import is_compile_supported
    assert is_compile_supported.__module__ == "torch._dynamo.utils"
    assert torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)) == 2
    assert torch.compiler.disable(lambda: 1)._torchdynamo_disable
    assert torchvision.ops.nms(torch.ones(1, 4), torch.ones(1), 0.5).tolist() == [0]
    assert torchvision.ops.roi_align(torch.ones(1, 1, 8, 8), [torch.tensor([[0.0, 0, 4, 4]])], 2).shape == (1, 1, 2, 2)
    assert len(timm.list_models()) > 1000 and timm.create_model("resnet10t").num_features == 512
    assert timm.models.create_feature_extractor(timm.create_model("resnet18"), ["layer1"])

def real():
    import sys
    packages = ("torch._dynamo", "torchvision", "timm", "huggingface_hub")
    for name, module in list(sys.modules.items()):
        if name.startswith(packages):
            assert getattr(module, "__spec__", None) is not None, f"{name} is not the real module: {module}"
"""
LIBRARY = """
from adcore.registry import create_model
create_model("padim", backbone="resnet18", layers=["layer1"], weights="random", n_features=4)
"""
THREADS = """
from threading import Thread
failures = []
def guarded(work):
    try:
        work()
    except BaseException as error:
        failures.append(error)
threads = [Thread(target=guarded, args=(work,)) for work in (use, lambda: exec(LIBRARY), lambda: exec(LIBRARY))]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not failures, failures
"""


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(f"use(){LIBRARY}real()", id="before adcore", marks=pytest.mark.slow),
        pytest.param(f"{LIBRARY}real()\nuse()\nreal()", id="after adcore", marks=pytest.mark.slow),
        pytest.param(
            f"LIBRARY = {LIBRARY!r}{THREADS}real()\nuse()", id="beside adcore, in threads", marks=pytest.mark.slow
        ),
    ],
)
def test_other_code_meets_the_real_libraries(code: str) -> None:
    run_python(USE + code)


PLUGIN = f"""
from adcore.hookspecs import hookimpl
{USE}
use()  # no plugin should do so much when it is listed, but it may
real()

@hookimpl
def adcore_register_models():
    return []
"""
START = """
import sys
from adcore.cli.start import import_libraries
import_libraries()
from adcore.plugins import load_plugins
problems = load_plugins().problems
assert not problems, problems[0].details
"""


def test_a_plugin_meets_the_real_libraries_in_a_command(tmp_path: Path) -> None:
    site = write_distribution(tmp_path, "foreign", {"foreign.py": PLUGIN}, "foreign")
    run_python(f"{START}assert 'foreign' in {{origin.plugin for origin in load_plugins().origins}}", site)


@pytest.mark.slow  # the test before it is the same with a whole command
def test_there_is_no_stand_in_where_a_third_party_plugin_is_installed(tmp_path: Path) -> None:
    site = write_distribution(tmp_path, "foreign", {"foreign.py": PLUGIN}, "foreign")
    code = START.partition("from adcore.plugins")[0]
    run_python(f"{code}import timm, torchvision\nassert 'torch._dynamo' in sys.modules", site)


@pytest.mark.skipif(TORCH < (2, 14), reason="older versions of torch import their compiler in other ways, too")
def test_a_command_that_predicts_imports_no_compiler_and_leaves_no_stand_in(tmp_path: Path) -> None:
    run_python(f"""{USE}
import sys
from adcore.cli import main
sys.argv = ["adcore", "predict", {str(tmp_path / "missing.safetensors")!r}, "image.png"]
try:
    main()
except SystemExit as stop:
    assert stop.code == 2
assert "timm" in sys.modules and not {{"torch._dynamo", "sympy"}} & set(sys.modules), "the compiler was imported"
{LIBRARY}
assert not {{"torch._dynamo", "sympy"}} & set(sys.modules), "the compiler was imported"
real()
use()
real()
""")


def test_a_process_that_is_not_ours_keeps_its_imports() -> None:
    run_python("""
import sys, torch
from adcore.cli.start import import_libraries
import_libraries()
assert "timm" not in sys.modules
""")


def test_the_start_of_a_command_is_the_only_place_that_writes_sys_modules() -> None:
    found = set()
    for path in sorted(SOURCES.glob("*/src/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
            if isinstance(node, ast.Assign | ast.AugAssign | ast.Delete | ast.AnnAssign):
                written = any(ast.unparse(t).startswith("sys.modules") for t in targets)
            elif isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                written = name.startswith("sys.modules.") and not name.endswith((".get", ".items", ".keys"))
            else:
                written = False
            if written:
                found.add(path.relative_to(SOURCES).as_posix())
    assert found == {"adcore/src/adcore/cli/start.py"}
