"""What the wheels of this repository hold: the package, its licence and py.typed, and no test, no data, no weights."""

from __future__ import annotations

import importlib.util
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
spec = importlib.util.spec_from_file_location("release", ROOT / "tools" / "release.py")
release = importlib.util.module_from_spec(spec)
spec.loader.exec_module(release)
LARGEST = {"adcore": 450_000}  # bytes; a family's: 150,000


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """wheel(package): the file, built once."""
    pytest.importorskip("hatchling", reason="pip install hatchling")
    out = tmp_path_factory.mktemp("wheels")

    def build(package: Path) -> Path:
        found = f"{package.name.replace('-', '_')}-*.whl"
        if not list(out.glob(found)):
            release.build(package, out, "wheel")
        return next(out.glob(found))

    return build


@pytest.mark.parametrize("package", release.PACKAGES, ids=lambda path: path.name)
def test_a_wheel_is_small_and_complete_for_publication(package, wheel) -> None:
    file = wheel(package)
    assert file.stat().st_size < LARGEST.get(package.name, 150_000)
    assert release.problems(file) == []


def test_the_check_finds_what_is_missing_and_what_does_not_belong(wheel, tmp_path) -> None:
    good = wheel(ROOT / "packages" / "adm-memory")
    bad = tmp_path / good.name
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w") as target:
        for name in source.namelist():
            if not name.endswith(("LICENSE", "py.typed")):
                target.writestr(name, source.read(name).replace(b"Author: ", b"By: "))
        for name in ("adm_memory/weights.pt", "adm_memory/test_padim.py", "tests/data.txt"):
            target.writestr(name, "")
    found = " ".join(release.problems(bad))
    for problem in (
        "lack Author",
        "LICENSE",
        "py.typed",
        "weights.pt is a stray",
        "test_padim.py is a test",
        "outside of",
    ):
        assert problem in found
