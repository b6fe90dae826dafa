"""Small distributions written straight into a folder, for tests of what really installed plugins do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


def write_distribution(
    site: Path,
    name: str,
    files: Mapping[str, str],
    plugin: str | None = None,
    version: str = "1.0",
    requires: Sequence[str] = (),
) -> Path:
    """Install a distribution `name` into the folder `site`, as pip would leave it: modules and a `.dist-info`.

    `files` maps relative paths to text; `plugin` is the module of its entry point in the group `adcore`, which is called as
    the distribution is. With `site` on PYTHONPATH, Python and adcore see it as installed. Returns `site`.
    """
    for path, text in files.items():
        target = site / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    needs = "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
    if plugin:
        (info / "entry_points.txt").write_text(f"[adcore]\n{name} = {plugin}\n")
    return site


def run_python(code: str, *sites: Path, **environment: str) -> str:
    """What `code` prints in a new Python that sees the distributions in `sites`; AssertionError with its stderr on failure."""
    path = os.pathsep.join([*map(str, sites), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
