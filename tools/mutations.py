"""Breaks one line of the sources at a time and says whether the quick tests of that area notice.

    hatch run python tools/mutations.py              (all of mutations.toml)
    hatch run python tools/mutations.py resume mask  (those whose names contain one of these)

Each mutation is made in a copy of its package's sources, which stands first on PYTHONPATH. The tests must pass without it.
Exit status 1 when a mutation goes unnoticed.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def noticed(file: str, old: str, new: str, tests: list[str], folder: Path) -> str:
    """Whether the tests notice that `old` became `new` in `file`, made in `folder`; or what went wrong."""
    package, source = file.split("/src/")
    copy = folder / "src"
    shutil.copytree(ROOT / "packages" / package / "src", copy)
    text = (copy / source).read_text(encoding="utf-8")
    if text.count(old) != 1:
        return f"ERROR: the line to break occurs {text.count(old)} times in {file}"
    (copy / source).write_text(text.replace(old, new), encoding="utf-8")
    path = os.pathsep.join([str(copy), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "pytest", "-x", "-n0", "--tb=line", *tests]
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    if done.returncode == 1 and failed:
        return f"noticed by {failed[0].split()[1]}"
    return (
        "NOT NOTICED" if done.returncode == 0 else f"ERROR: pytest ended with {done.returncode}: {done.stdout[-300:]}"
    )


def main(names: list[str]) -> None:
    bad = 0
    for title, mutation in tomllib.loads((ROOT / "tools" / "mutations.toml").read_text(encoding="utf-8")).items():
        if not names or any(name in title for name in names):
            with tempfile.TemporaryDirectory() as folder:
                answer = noticed(**mutation, folder=Path(folder))
            bad += not answer.startswith("noticed")
            print(f"{title}: {answer}", flush=True)
    sys.exit(bool(bad))


if __name__ == "__main__":
    main(sys.argv[1:])
