"""What a bundle needs on another kind of machine.

`pip download --platform` chooses wheels for that machine, but decides by the machine that it runs on which requirements count
(`colorama; sys_platform == "win32"`). They are therefore followed here, and pip fetches single wheels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email import message_from_string
from pathlib import Path
from zipfile import ZipFile

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

from adcore.errors import ConfigError

NAMES = {
    "win": ("nt", "win32", "Windows"),
    "macosx": ("posix", "darwin", "Darwin"),
}  # os, sys.platform, platform.system
MACHINES = ("x86_64", "aarch64", "arm64", "amd64", "i686")
ROUNDS = 50  # far more than the longest chain of requirements


@dataclass(frozen=True)
class _Wheel:
    path: Path
    version: Version
    requirements: list[Requirement]


def target_environment(platform: str | None, python_version: str | None) -> dict[str, str]:
    """The values of markers on another machine; both arguments as pip takes them, None: as here."""
    environment = dict(default_environment())
    if python_version:
        plain = python_version if "." in python_version else f"{python_version[0]}.{python_version[1:] or 0}"
        parts = [*plain.split("."), "0"]
        environment |= {"python_version": ".".join(parts[:2]), "python_full_version": ".".join(parts[:3])}
    if platform:
        known = next(
            (names for start, names in NAMES.items() if platform.startswith(start)), ("posix", "linux", "Linux")
        )
        machine = next((name for name in MACHINES if platform.endswith(name)), "x86")
        environment |= dict(zip(("os_name", "sys_platform", "platform_system"), known, strict=True))
        environment |= {"platform_machine": machine.upper() if known[0] == "nt" else machine}
        environment |= {"platform_release": "", "platform_version": ""}
    return environment


def complete(
    wheels: Path, requirements: Sequence[str], environment: dict[str, str], download: Callable[[list[str]], None]
) -> None:
    """Let `download` fetch wheels into `wheels` until all that `requirements` and the wheels there need is there.

    Of each package the newest version that is admitted so far; ConfigError where that leads to no end.
    """
    for _ in range(ROUNDS):
        found = dict(map(_read, sorted(wheels.glob("*.whl"))))
        lacking = []
        for name, admitted in _wanted(found, requirements, environment).items():
            if name in found and admitted.contains(found[name].version, prereleases=True):
                continue
            if name in found:  # newer than another package admits
                found[name].path.unlink()
            lacking.append(f"{name}{admitted}")
        if not lacking:
            return
        download(sorted(lacking))
    raise ConfigError(
        f"no set of versions fits together: {', '.join(sorted(lacking))}; make the bundle on such a machine"
    )


def _wanted(
    found: dict[str, _Wheel], requirements: Sequence[str], environment: dict[str, str]
) -> dict[str, SpecifierSet]:
    """{name: versions that all admit} of the `requirements`, of what was found, and of what they need."""
    wanted: dict[str, SpecifierSet] = defaultdict(SpecifierSet)
    waiting, seen = [Requirement(line) for line in (*requirements, *found)], set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        wanted[name] &= requirement.specifier
        for extra in ("", *requirement.extras):
            if name in found and (name, extra) not in seen:
                seen.add((name, extra))
                values = {**environment, "extra": extra}
                waiting += [
                    one for one in found[name].requirements if one.marker is None or one.marker.evaluate(values)
                ]
    return wanted


def _read(path: Path) -> tuple[str, _Wheel]:
    name, version, *_ = parse_wheel_filename(path.name)
    with ZipFile(path) as archive:
        metadata = next(entry for entry in archive.namelist() if entry.endswith(".dist-info/METADATA"))
        lines = message_from_string(archive.read(metadata).decode("utf-8")).get_all("Requires-Dist") or []
    return name, _Wheel(path, version, [Requirement(line) for line in lines])
