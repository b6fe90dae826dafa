"""What the wheels of this repository hold: the package, and no test, no data, no weights."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

PACKAGES = sorted(path.parent for path in (Path(__file__).parent.parent / "packages").glob("*/pyproject.toml"))
LARGEST = {"adcore": 250_000}  # bytes; a family's: 150,000


@pytest.mark.skipif(find_spec("hatchling") is None, reason="pip install hatchling")
@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_a_wheel_is_small_and_holds_the_package_only(package, tmp_path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=package, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < LARGEST.get(package.name, 150_000)
    module = package.name.replace("-", "_")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        entries = next(name for name in names if name.endswith("METADATA")).replace("METADATA", "entry_points.txt")
        text = archive.read(entries).decode()
    assert {name.partition("/")[0] for name in names} == {module, f"{module}-0.1.0.dist-info"}
    inside = [name for name in names if name.startswith(f"{module}/")]
    assert {Path(name).suffix for name in inside} <= {".py", ".j2"}
    assert [name for name in inside if Path(name).name.startswith(("test_", "conftest"))] == []
    expected = "adcore = adcore.cli:main" if package.name == "adcore" else f" = {module}.plugin"
    assert expected in text
