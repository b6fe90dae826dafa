"""A bundle for another machine has what that machine needs, not what this one would."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from adcore.bundle_target import complete, target_environment
from adcore.errors import ConfigError


def wheel(folder: Path, name: str, version: str = "1.0", requires: tuple[str, ...] = ()) -> None:
    lines = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}", *(f"Requires-Dist: {one}" for one in requires)]
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}-{version}.dist-info/METADATA", "\n".join(lines) + "\n")


class Index:
    """Takes pip's place: the newest admitted version of each requirement."""

    def __init__(self, folder: Path, packages: dict[str, dict[str, tuple[str, ...]]]) -> None:
        self.folder, self.packages, self.asked = folder, packages, []

    def __call__(self, lines: list[str]) -> None:
        from packaging.requirements import Requirement

        self.asked += lines
        for line in lines:
            wanted = Requirement(line)
            version = max(wanted.specifier.filter(self.packages[wanted.name]))
            wheel(self.folder, wanted.name, version, self.packages[wanted.name][version])

    def names(self) -> set[str]:
        return {path.name.removesuffix("-py3-none-any.whl") for path in self.folder.glob("*.whl")}


PACKAGES = {
    "family": {"1.0": ("torch>=1", "click[shell]", "vision", "later; python_version >= '3.13'")},
    "torch": {
        "1.0": (),
        "2.0": ("triton; platform_system == 'Linux'",),
        "3.0": ("triton; platform_system == 'Linux'",),
    },
    "vision": {"1.0": ("torch<3",)},  # the newest torch, which came first, is replaced
    "click": {"8.0": ("colorama; sys_platform == 'win32'", "shellingham; extra == 'shell'", "docs; extra == 'docs'")},
    "colorama": {"1.0": ()},
    "shellingham": {"1.0": ("deep; platform_machine == 'AMD64' or platform_machine == 'arm64'",)},
    "deep": {"1.0": ()},
    "triton": {"1.0": ()},
    "later": {"1.0": ()},
}
EVERYWHERE = {"family-1.0", "torch-2.0", "vision-1.0", "click-8.0", "shellingham-1.0"}


@pytest.mark.parametrize(
    ("platform", "python_version", "more"),
    [
        ("win_amd64", "3.12", {"colorama-1.0", "deep-1.0"}),
        ("win_amd64", "313", {"colorama-1.0", "deep-1.0", "later-1.0"}),
        ("macosx_11_0_arm64", "3.11", {"deep-1.0"}),
        ("manylinux_2_28_x86_64", "3.13.2", {"triton-1.0", "later-1.0"}),
    ],
)
def test_requirements_are_those_of_the_other_machine(tmp_path, platform, python_version, more) -> None:
    index = Index(tmp_path, PACKAGES)
    wheel(tmp_path, "family", "1.0", PACKAGES["family"]["1.0"])  # as one that was built from a folder
    complete(tmp_path, [], target_environment(platform, python_version), index)
    assert index.names() == EVERYWHERE | more
    assert not any("family" in line for line in index.asked)


def test_pins_are_kept_and_versions_that_do_not_fit_are_said(tmp_path) -> None:
    index = Index(tmp_path, PACKAGES)
    complete(tmp_path, ["torch==1.0"], target_environment("win_amd64", None), index)
    assert index.names() == {"torch-1.0"}

    def newest_whatever_is_asked(lines: list[str]) -> None:
        wheel(tmp_path, "torch", "3.0")

    (tmp_path / "torch-1.0-py3-none-any.whl").unlink()
    with pytest.raises(ConfigError, match="no set of versions fits together: torch==1.0,>=2"):
        complete(tmp_path, ["torch==1.0", "torch>=2"], target_environment(None, "3.12"), newest_whatever_is_asked)
