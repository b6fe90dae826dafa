"""Bundles for offline machines: a folder of wheels, weights as wheels, data, install scripts and a manifest."""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import distribution, distributions
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

from packaging.utils import parse_wheel_filename

from adcore import __version__
from adcore.bundle_manifest import FORMAT, MANIFEST, fingerprints
from adcore.bundle_target import complete, target_environment
from adcore.cards import ModelCard
from adcore.errors import AdcoreError, ConfigError
from adcore.files import removed_on_failure, sha256_file, write_json
from adcore.plugins import WEIGHTS
from adcore.registry import backbone_card, card_origin, model_card, model_origin

STATION = {"adcore-runtime"}  # what runs an exported model
SH = """#!/bin/sh
# Installs {what} from this folder, without a network; options go to pip.
set -eu
cd "$(dirname "$0")"
exec "${{PYTHON:-python3}}" -m pip install --no-index --find-links wheels --require-hashes -r requirements.txt "$@"
"""
PS1 = """# Installs {what} from this folder, without a network; options go to pip.
$ErrorActionPreference = "Stop"
Set-Location $PSScriptRoot
$python = if ($env:PYTHON) {{ $env:PYTHON }} else {{ "python" }}
& $python -m pip install --no-index --find-links wheels --require-hashes -r requirements.txt @args
exit $LASTEXITCODE
"""


@dataclass
class Order:
    """The contents of a bundle besides weights: `projects` are folders that are built, `requirements` go to the index."""

    requirements: list[str] = field(default_factory=list)  # "name==version"
    projects: list[Path] = field(default_factory=list)
    platform: str | None = None  # of the target machine, as pip names it: win_amd64, manylinux_2_28_x86_64
    python_version: str | None = None  # of the target machine: 3.11


def make_bundle(
    models: Sequence[str],
    out: str | Path,
    platform: str | None = None,
    python_version: str | None = None,
    data: Sequence[str | Path] = (),
    weights: bool = True,
    collect: Callable[[Order, Path], None] | None = None,
) -> Path:
    """Write the folder `out`, whole or not at all, with everything that `models` need; returns it.

    Only the families of these models are included. Weights that are on this machine are packed as wheels (`weights=False`
    leaves them out); `data` are folders that are copied. `collect` fetches wheels and is `pip_collect` by default.
    Raises ConfigError for an unknown model, a folder that exists, or when pip fails, WeightsError when weights are missing.
    """
    out = Path(out)
    if out.exists():
        raise ConfigError(f"{out} exists already; choose another folder")
    names = [model_card(name).name for name in models]
    if not names:
        raise ConfigError("a bundle needs at least one model; see: adcore list-models")
    folders = {}
    for folder in map(Path, data):
        if not folder.is_dir():
            raise ConfigError(f"data folder {folder} does not exist")
        other = folders.setdefault(folder.resolve().name, folder)
        if other is not folder:
            raise ConfigError(f"data folders {other} and {folder} have one name; rename one")
    packed, carriers = _weights([model_card(name) for name in names]) if weights else ([], set())
    families = {model_origin(model).distribution for model in names}
    order = _order({*STATION, "adcore", *families, *carriers}, platform, python_version)

    def fill(folder: Path) -> None:
        from adcore.backbones.pack import pack

        for file, name in packed:
            pack(file, name, folder / "wheels")
        for name, source in folders.items():
            _copy(source, folder / "data" / name)

    return _write(out, order, names, fill, collect)


def make_runtime_bundle(
    model: str | Path,
    out: str | Path,
    platform: str | None = None,
    python_version: str | None = None,
    collect: Callable[[Order, Path], None] | None = None,
) -> Path:
    """Write the folder `out`, whole or not at all: an exported model and what runs it, without torch; returns it.

    Beside the ONNX file come those whose names begin with its name: large weights, and the sidecar with a threshold.
    Raises ArtifactError for a model that is not adcore's or does not run here, ConfigError as `make_bundle`.
    """
    from adcore_runtime import load

    model, out = Path(model), Path(out)
    if out.exists():
        raise ConfigError(f"{out} exists already; choose another folder")
    load(model, threads=1)
    order = _order(STATION, platform, python_version)

    def fill(folder: Path) -> None:
        for file in (model, *model.parent.glob(f"{glob.escape(model.name)}.*")):
            shutil.copyfile(file, folder / file.name)

    return _write(out, order, [model.name], fill, collect)


def _order(distributions: set[str], platform: str | None, python_version: str | None) -> Order:
    """The installed `distributions`, from their source folders or from the index."""
    order = Order(platform=platform, python_version=python_version)
    for name in sorted(distributions):
        project = _project_folder(name)
        if project:
            order.projects.append(project)
        else:
            order.requirements.append(f"{name}=={distribution(name).version}")
    return order


def _write(
    out: Path,
    order: Order,
    models: list[str],
    fill: Callable[[Path], None],
    collect: Callable[[Order, Path], None] | None,
) -> Path:
    """Write the bundle of `models`: the wheels of `order`, what `fill` puts into the folder, scripts and manifest."""
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    with removed_on_failure(temporary):
        wheels = temporary / "wheels"
        wheels.mkdir(parents=True)
        (collect or pip_collect)(order, wheels)
        fill(temporary)
        _write_scripts(temporary, models)
        manifest = {"format": FORMAT, "adcore": __version__, "models": models, "platform": order.platform}
        manifest |= {"python_version": order.python_version, "files": fingerprints(temporary)}
        write_json(temporary / MANIFEST, manifest)
        temporary.rename(out)
    return out


def pip_collect(order: Order, wheels: Path) -> None:
    """Fill the folder `wheels` with pip: build projects, then fetch them and all that they need.

    For this machine's own kind the versions are those that are installed here. ConfigError with pip's last line.
    """
    for project in order.projects:
        _pip("wheel", "--no-deps", "--wheel-dir", str(wheels), str(project))
    if order.platform or order.python_version:
        target = ["--only-binary=:all:"]
        target += ["--platform", order.platform] if order.platform else []
        target += ["--python-version", order.python_version] if order.python_version else []
        fetch = ("download", "--no-deps", "--dest", str(wheels), *target)
        environment = target_environment(order.platform, order.python_version)
        complete(wheels, order.requirements, environment, lambda lines: _pip(*fetch, *lines))
        return
    wanted = [str(path) for path in sorted(wheels.glob("*.whl"))] + order.requirements
    constraints = wheels.parent / "constraints.txt"
    constraints.write_text("".join(f"{line}\n" for line in _installed_versions()), encoding="utf-8")
    _pip("wheel", "--wheel-dir", str(wheels), "--constraint", str(constraints), *wanted)
    constraints.unlink()


def _copy(folder: Path, to: Path) -> None:
    """Copy a folder of data, with what its links point to."""
    try:
        shutil.copytree(folder, to)
    except shutil.Error as error:
        raise ConfigError(f"data folder {folder} cannot be copied: {error.args[0][0][-1]}") from None


def _installed_versions() -> list[str]:
    pins = {d.name: f"{d.name}=={d.version}" for d in distributions() if d.name and "+" not in d.version}
    return sorted(pin for name, pin in pins.items() if not _project_folder(name))


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (
            [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines() or ["?"]
        )
        raise ConfigError(f"pip {arguments[0]} failed: {lines[-1]}")


def _project_folder(name: str) -> Path | None:
    """The source folder of a distribution that was installed from one (pip install -e, for instance)."""
    text = distribution(name).read_text("direct_url.json")
    found = json.loads(text) if text else {}
    folder = Path(url2pathname(urlparse(found.get("url", "")).path)) if "dir_info" in found else None
    return folder if folder and folder.is_dir() else None


def _weights(cards: list[ModelCard]) -> tuple[list[tuple[Path, str]], set[str]]:
    """(file, backbone) of the weights to pack, and the distributions that describe or carry backbones of their own.

    Weights that a model needs must be here (WeightsError); optional ones are taken along where they are.
    """
    from adcore.backbones.resolve import find, resolve

    optional = {backbone_card(name).name for card in cards for name in card.optional_backbones}
    needed = {backbone_card(name).name for card in cards for name in card.required_backbones}
    packed, carriers = [], set()
    for name in sorted(needed | {name for name in optional if find(backbone_card(name))}):
        found = resolve(name)
        origin = card_origin(found.card)
        if origin.plugin != "adcore" and not origin.distribution.startswith(WEIGHTS):
            carriers.add(origin.distribution)
            if found.origin == "wheel" and not found.card.wheel[0].startswith(WEIGHTS):
                carriers.add(found.card.wheel[0])
                continue
        packed.append((found.path, name))
    return packed, carriers


def _write_scripts(folder: Path, models: list[str]) -> None:
    lines = []
    for wheel in sorted((folder / "wheels").iterdir()):
        if wheel.suffix != ".whl":
            raise AdcoreError(f"{wheel.name} is no wheel; a bundle holds wheels only")
        name, version, *_ = parse_wheel_filename(wheel.name)
        lines.append(f"{name}=={version} --hash=sha256:{sha256_file(wheel)}\n")
    (folder / "requirements.txt").write_text("".join(lines), encoding="utf-8")
    what = re.sub(r"[^\w, .-]", "", ", ".join(models))
    (folder / "install.sh").write_text(SH.format(what=what), encoding="utf-8", newline="\n")
    (folder / "install.sh").chmod(0o755)
    (folder / "install.ps1").write_text(PS1.format(what=what), encoding="utf-8")
