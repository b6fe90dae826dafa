"""Every code block of the README and the docs is executed, in an empty folder, in the order of its page.

`python` and `sh` blocks run; `text`, `toml` and `json` blocks are shown output or file contents (an info string such as
```toml pyproject.toml``` writes the block to that file first).
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import warm
from adcore.testing.needs import skip_without_onnx

ROOT = Path(__file__).parent.parent
KOREAN = ROOT / "README.ko.md"
PAGES = [ROOT / "README.md", KOREAN, *sorted((ROOT / "docs").glob("*.md"))]
PAGES += sorted((ROOT / "packages").glob("*/README.md"))
BLOCK = re.compile(r"^```(\w+)[ ]?([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SET_UP = {  # the two commands that made this environment, or would make another one inside it
    "pip install hatch && hatch run demo",
    "pip install hatch && hatch run test",
}

SLOW = {"pytest spot-finder"}  # the same checks as `adcore check-plugin` before it; tests/test_new_plugin.py, -m slow

SHELL = re.compile(r"[|&;<>$`*?\\(){}]|^(cd|export|if|for) |^\w+=", re.MULTILINE)


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """(language, info, code) of each fenced block."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def test_every_fence_has_a_language_that_is_known() -> None:
    for page in PAGES:
        fences = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("```")]
        assert len(fences) == 2 * len(blocks(page)), f"{page.name}: a code block without a language"
        assert {language for language, *_ in blocks(page)} <= {"sh", "python", "text", "toml", "json", "yaml"}, (
            page.name
        )


def test_ci_runs_the_readmes_test_command_and_nothing_else() -> None:
    commands = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line and line[0] not in "#sc"]
    assert commands == ["pip install hatch && hatch run test"]
    assert all(f"\n{command}\n" in (ROOT / "README.md").read_text() for command in SET_UP)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty folder with a photograph-like dataset `data/part` in it, as a user would have one, and the workspace's tools."""
    from adcore.testing import write_tiny_mvtec

    write_tiny_mvtec(tmp_path / "data", anomalous=5)  # a check of an export needs 8 images
    (tmp_path / "tools").symlink_to(ROOT / "tools")
    environment = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "120"}
    # a page's `pip install ./package` goes into the page's own folder, builds with what is here, and fetches nothing
    path = os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])
    environment |= {"PIP_TARGET": str(tmp_path / "site"), "PYTHONPATH": path, "PIP_NO_INDEX": "1"}
    environment |= {"PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    return tmp_path


def test_the_korean_readme_has_the_code_of_the_english_one() -> None:
    assert blocks(KOREAN) == blocks(ROOT / "README.md")


def commands(language: str, code: str, folder: Path) -> list[list[str]]:
    """What a block runs, one after the other: a script, the lines of a shell script, or where the lines need a shell it."""
    script = folder / f"block.{language}"
    script.write_text(code, encoding="utf-8")
    if language == "python":
        return [[sys.executable, script.name] if "sys.modules" in code else [script.name]]  # it asks what is imported
    lines = code.replace("\\\n", " ")  # a line that goes on in the next one
    if SHELL.search(lines):
        return [[shutil.which("bash"), "-euo", "pipefail", script.name]]
    return [words for line in lines.splitlines() if (words := shlex.split(line, comments=True))]


def run(command: list[str], folder: Path) -> tuple[int, str]:
    """Exit code and output of a command, of adcore and of Python scripts in a process that has imported torch already."""
    if command[0] in ("adcore", "block.python"):
        return warm.run(command, folder)
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize("page", [p for p in PAGES if p != KOREAN], ids=lambda page: str(page.relative_to(ROOT)))
def test_code_blocks_run(page, folder) -> None:
    for language, info, code in blocks(page):
        if info and language in ("toml", "json", "yaml", "python"):
            (folder / info).parent.mkdir(parents=True, exist_ok=True)
            (folder / info).write_text(code, encoding="utf-8")
        elif language in ("sh", "python"):
            if "adcore export" in code:
                skip_without_onnx()  # and the rest of the page
            code = "\n".join(line for line in code.splitlines() if line.strip() not in SET_UP | SLOW)
            for command in commands(language, code, folder):
                status, output = run(command, folder)
                assert status == 0, f"{page.name}:\n{code}\n{output}"


def test_the_site_builds_with_every_link_and_docstring(tmp_path) -> None:
    pytest.importorskip("mkdocs", reason="pip install mkdocs-material mkdocstrings[python]")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "api" / "index.html").read_text(encoding="utf-8")
    assert all(name in reference for name in ("adcore.api.train", "AnomalyModel", "on_fit_end", "ModelCard"))
