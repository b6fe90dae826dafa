"""Release checklist: `python tools/release.py --out dist` builds all packages, checks them and installs each family alone.

1. Build a wheel and a source archive of every package (hatchling, without a network).
2. Check them: `twine check --strict`; licence, `py.typed`, authors, keywords and classifiers inside, no test, no stray file.
3. Install the core with its runtime, then these and one family at a time, into an empty environment; run
   `adcore list-models` and `adcore doctor` there. By default that environment borrows the libraries of this one (a torch
   environment takes 5.5 GB); `--full` makes a real one with pip for each family in turn, from the index or from
   `--wheelhouse DIR`, and deletes it.

Exit code 1 and a list where something is wrong. Uploading stays by hand: `twine upload dist/*`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from email.parser import HeaderParser
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = sorted(path.parent for path in (ROOT / "packages").glob("*/pyproject.toml"))
OURS = (
    "adcore",
    "adm_",
    "_adcore",
    "_adm_",
    "_editable_impl_ad",
    "__editable__",
    "distutils-precedence",
    "__pycache__",
)
ENTRY_POINTS = {  # of a family: its plugin module
    "adcore": "adcore = adcore.__main__:main",
    "adcore_runtime": "adcore-predict = adcore_runtime.command:main",
}
SUFFIXES = {".py", ".j2", ".js", ".css", ".html", ".json", ".typed"}  # what a package may hold
METADATA = ("Summary", "Author", "Keywords", "License-Expression", "Classifier", "Requires-Python")


def build(package: Path, out: Path, *targets: str) -> None:
    """Write the package's wheel and source archive into `out`; `targets`: "wheel", "sdist" or, left out, both."""
    chosen = [word for target in targets for word in ("-t", target)]
    command = [sys.executable, "-m", "hatchling", "build", *chosen, "-d", str(out.resolve())]
    subprocess.run(command, cwd=package, check=True, capture_output=True)


def problems(wheel: Path) -> list[str]:
    """What is wrong with a wheel of this repository; empty where nothing is."""
    module = wheel.name.partition("-")[0]
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (info,) = {name.partition("/")[0] for name in names if ".dist-info/" in name}
        metadata = HeaderParser().parsestr(archive.read(f"{info}/METADATA").decode())
        licence = f"{info}/licenses/LICENSE"
        licence = archive.read(licence).decode().split() if licence in names else []
        entry_points = archive.read(f"{info}/entry_points.txt").decode()
    found = [f"metadata lack {key}" for key in METADATA if not metadata[key]]
    if licence != (ROOT / "LICENSE").read_text(encoding="utf-8").split():
        found.append("its LICENSE is not the repository's")
    if f"{module}/py.typed" not in names:
        found.append("py.typed is missing")
    for path in map(Path, names):
        if path.parts[0] not in (module, info):
            found.append(f"{path} is outside of {module}")
        elif path.parts[0] == module and (path.suffix or f".{path.name}") not in SUFFIXES:
            found.append(f"{path} is a stray file")
        elif path.name.startswith(("test_", "conftest")):
            found.append(f"{path} is a test")
    if ENTRY_POINTS.get(module, f" = {module}.plugin") not in entry_points:
        found.append("its entry point is missing")
    return [f"{wheel.name}: {problem}" for problem in found]


def borrowed_environment(site: Path, wheels: list[Path]) -> tuple[list[str], dict[str, str]]:
    """Make `site`: links to this environment's libraries without our packages, and the wheels, unpacked.

    Returns the start of a command line and the variables with which Python sees that folder alone. Needs symbolic links.
    """
    site.mkdir()
    for library in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(library).iterdir():
            if not entry.name.startswith(OURS):
                (site / entry.name).symlink_to(entry)
    for wheel in wheels:
        zipfile.ZipFile(wheel).extractall(site)
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("ADCORE_", "PYTHON"))}
    return [sys.executable, "-S"], clean | {"PYTHONPATH": str(site)}


def full_environment(folder: Path, wheels: list[Path], wheelhouse: Path | None) -> tuple[list[str], dict[str, str]]:
    """Make a virtual environment with pip: the wheels and all that they need, from `wheelhouse` alone where one is given."""
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    source = ["--no-index", "--find-links", str(wheelhouse)] if wheelhouse else []
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("ADCORE_", "PYTHON"))}
    subprocess.run([python, "-m", "pip", "install", "--quiet", *source, *wheels], env=clean, check=True)
    return [str(python)], clean


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder for the archives; must be empty")
    parser.add_argument("--full", action="store_true", help="real environments instead of borrowed libraries")
    parser.add_argument("--wheelhouse", type=Path, help="with --full: folder to install libraries from")
    options = parser.parse_args()
    if options.out.exists() and any(options.out.iterdir()):
        parser.error(f"{options.out} is not empty; choose another folder, or empty it")
    found = []
    for package in PACKAGES:
        build(package, options.out)
    wheels = {wheel.name.partition("-")[0]: wheel for wheel in sorted(options.out.glob("*.whl"))}
    archives = sorted(options.out.iterdir())
    print(*(f"built {archive.name}" for archive in archives), sep="\n")
    if subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *archives]).returncode:
        found.append("twine check failed (pip install twine)")
    for wheel in wheels.values():
        found += problems(wheel)
    for name, wheel in wheels.items():
        with tempfile.TemporaryDirectory() as folder:
            chosen, place = list({wheels["adcore_runtime"], wheels["adcore"], wheel}), Path(folder, "environment")
            made = (
                full_environment(place, chosen, options.wheelhouse)
                if options.full
                else borrowed_environment(place, chosen)
            )
            for command in ("list-models", "doctor"):
                program = [*made[0], "-c", "from adcore.cli import main; main()", command]
                done = subprocess.run(program, env=made[1], cwd=folder, capture_output=True, text=True)
                print(f"{name}: adcore {command}: exit code {done.returncode}, {len(done.stdout.splitlines())} lines")
                if done.returncode or (command == "list-models" and done.stderr):
                    found.append(f"{name} alone: adcore {command}: exit code {done.returncode}\n{done.stderr}")
    print(*(found or ["nothing wrong"]), sep="\n")
    return bool(found)


if __name__ == "__main__":
    raise SystemExit(main())
