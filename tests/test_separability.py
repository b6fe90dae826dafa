"""The core alone, and with one family: environments made of built wheels and of nothing else of ours.

Such an environment is a folder: everything from this one's site-packages but our own packages (as links), and the wheels
under test, unpacked. Python runs with -S, so that it sees this folder alone.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
spec = importlib.util.spec_from_file_location("release", ROOT / "tools" / "release.py")
release = importlib.util.module_from_spec(spec)
spec.loader.exec_module(release)
FAMILIES = sorted(path.parent.name for path in (ROOT / "packages").glob("adm-*/pyproject.toml"))
pytestmark = [
    pytest.mark.skipif(find_spec("hatchling") is None, reason="pip install hatchling"),
    pytest.mark.skipif(os.name == "nt", reason="makes symbolic links"),
]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> dict[str, Path]:
    """A wheel of each package."""
    out = tmp_path_factory.mktemp("wheels")
    for package in release.PACKAGES:
        release.build(package, out, "wheel")
    return {wheel.name.partition("-")[0].replace("_", "-"): wheel for wheel in out.glob("*.whl")}


@pytest.fixture
def environment(wheels, tmp_path):
    """environment("adcore", ...) -> run(code): Python with these packages and with the libraries that they need."""

    def make(*packages: str):
        python, variables = release.borrowed_environment(tmp_path / "site", [wheels[package] for package in packages])

        def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
            command = [*python, "-c", code, *arguments]
            return subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, text=True, check=False)

        return run

    return make


ADCORE = "from adcore.cli import main; main()"


def test_the_core_alone_lists_nothing_and_says_so(environment) -> None:
    run = environment("adcore-runtime", "adcore")
    where = run("import adcore; print(adcore.__file__)")
    assert where.stdout.strip().endswith(os.path.join("site", "adcore", "__init__.py")), where.stderr
    listed = run(ADCORE, "list-models")
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout.startswith("No models are installed. Install a family")
    assert run(ADCORE, "doctor").returncode == 0
    unknown = run(ADCORE, "info", "padim")
    assert unknown.returncode == 2
    assert "pip install adm-memory" in unknown.stderr


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_works_without_any_other(environment, family) -> None:
    run = environment("adcore-runtime", "adcore", family)
    code = (
        "import json, sys\nfrom adcore.cards import load_target\nfrom adcore.registry import list_models, model_origin\n"
        "for card in list_models(): load_target(card.target)\n"
        "packages = {model_origin(card.name).distribution for card in list_models()}\n"
        "modules = {name.partition('.')[0] for name in sys.modules if name.startswith('adm_')}\n"
        "print(json.dumps([sorted(packages), sorted(modules)]))"
    )
    done = run(code)
    assert done.stdout, done.stderr
    assert json.loads(done.stdout) == [[family], [family.replace("-", "_")]]


def test_an_uninstalled_family_takes_its_models_and_nothing_else(environment, tmp_path) -> None:
    run = environment("adcore-runtime", "adcore", *FAMILIES)
    before = json.loads(run(ADCORE, "list-models", "--json").stdout)
    assert {card["package"] for card in before} == set(FAMILIES)
    for path in (tmp_path / "site").glob("adm_memory*"):
        shutil.rmtree(path)
    after = run(ADCORE, "list-models", "--json")
    assert json.loads(after.stdout) == [card for card in before if card["package"] != "adm-memory"]
    assert after.stderr == ""
