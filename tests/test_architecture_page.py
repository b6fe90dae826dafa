"""The architecture page tells of modules and names that exist."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "02-architecture.md"
NAME = re.compile(r"\b(?:adcore|adm_\w+)(?:\.\w+)*")


def resolve(name: str) -> object:
    """The module, or the attribute of one, that a dotted name is."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = import_module(".".join(parts[:length]))
        except ModuleNotFoundError as error:
            if not name.startswith(str(error.name)):
                raise
            continue
        for attribute in parts[length:]:
            found = getattr(found, attribute)
        return found
    raise ModuleNotFoundError(name)


def test_every_name_of_the_page_exists() -> None:
    text = re.sub(r"```python.*?```", "", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    names = {name for name in NAME.findall(text) if not name.startswith(("adcore.toml", "adcore.load"))}
    assert len(names) > 40
    for name in sorted(names):
        resolve(name)


def test_files_that_the_page_names_exist() -> None:
    files = re.findall(r"`((?:tests|tools|docs)/[\w./-]+)`", PAGE.read_text(encoding="utf-8"))
    assert files
    assert [file for file in files if not (PAGE.parent.parent / file).is_file()] == []
