"""Copies code blocks and generated tables of the English pages into the Korean ones: `python tools/korean_pages.py`.

Both have the same number of them in the same order; text is translated by hand, and tests/test_korean_pages.py compares.
"""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
KOREAN = DOCS / "ko"
COPIED = {  # what is the same in both languages, to the byte
    "code blocks": re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL),
    "generated parts": re.compile(r"^<!-- (\w+): begin.*?^<!-- \1: end -->$", re.MULTILINE | re.DOTALL),
}
ENGLISH_ONLY = {"api.md"}  # made from docstrings


def pages() -> list[str]:
    """Names of the pages that have a translation."""
    return sorted(page.name for page in DOCS.glob("*.md") if page.name not in ENGLISH_ONLY)


def parts(kind: str, text: str) -> list[str]:
    """The code blocks or the generated parts of a page."""
    return [found[0] for found in COPIED[kind].finditer(text)]


def in_step(name: str) -> str:
    """The Korean page with the English page's code blocks and generated parts; ValueError where the numbers differ."""
    english = (DOCS / name).read_text(encoding="utf-8")
    korean = (KOREAN / name).read_text(encoding="utf-8")
    for kind, pattern in COPIED.items():
        wanted = parts(kind, english)
        if len(wanted) != len(parts(kind, korean)):
            raise ValueError(f"docs/ko/{name}: {len(parts(kind, korean))} {kind}, the English page has {len(wanted)}")
        queue = iter(wanted)
        korean = pattern.sub(lambda _, queue=queue: next(queue), korean)
    return korean


if __name__ == "__main__":
    for page in pages():
        (KOREAN / page).write_text(in_step(page), encoding="utf-8")
