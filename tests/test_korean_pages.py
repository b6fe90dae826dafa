"""The Korean pages say what the English ones do: the same headings, code, tables and numbers, and links that lead somewhere.

Their code blocks are those of the English pages to the byte, and run there (tests/test_docs.py).
"""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
spec = importlib.util.spec_from_file_location("korean_pages", ROOT / "tools" / "korean_pages.py")
korean_pages = importlib.util.module_from_spec(spec)
spec.loader.exec_module(korean_pages)
DOCS, KOREAN = korean_pages.DOCS, korean_pages.KOREAN
HANGUL = re.compile("[가-힣]")
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)")
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def both(name: str) -> tuple[str, str]:
    return (DOCS / name).read_text(encoding="utf-8"), (KOREAN / name).read_text(encoding="utf-8")


def prose(text: str) -> str:
    """A page without its code and its generated parts."""
    for pattern in korean_pages.COPIED.values():
        text = pattern.sub("", text)
    return text


def tables(text: str) -> list[list[list[str]]]:
    """The tables of a page: rows of cells."""
    found: list[list[list[str]]] = [[]]
    for line in prose(text).splitlines():
        if line.startswith("|"):
            found[-1].append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif found[-1]:
            found.append([])
    return [table for table in found if table]


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings: lower case, without punctuation, hyphens for spaces."""
    titles = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", title.lower())) for title in titles}


def test_every_page_has_a_translation_and_no_other() -> None:
    assert sorted(page.name for page in KOREAN.glob("*.md")) == korean_pages.pages()


@pytest.mark.parametrize("name", korean_pages.pages())
def test_code_and_generated_parts_are_the_same(name) -> None:
    assert both(name)[1] == korean_pages.in_step(name), "run: python tools/korean_pages.py"


@pytest.mark.parametrize("name", korean_pages.pages())
def test_headings_paragraphs_and_tables_correspond(name) -> None:
    english, korean = (prose(text) for text in both(name))
    levels = [re.findall(r"^(#+) ", text, re.MULTILINE) for text in (english, korean)]
    assert levels[0] == levels[1]
    assert all(HANGUL.search(title) for title in re.findall(r"^#+ (.+)$", korean, re.MULTILINE) if " " in title)
    blocks = [[block for block in re.split(r"\n\s*\n", text) if block.strip()] for text in (english, korean)]
    assert len(blocks[0]) == len(blocks[1]), "a paragraph is missing, or there is one too many"
    for one, other in zip(tables(english), tables(korean), strict=True):
        assert [len(row) for row in one] == [len(row) for row in other]
        for cell, translated in zip(chain(*one), chain(*other), strict=True):
            assert not Counter(NUMBER.findall(cell)) - Counter(NUMBER.findall(translated)), (cell, translated)


@pytest.mark.parametrize("name", korean_pages.pages())
def test_links_lead_to_pages_and_headings(name) -> None:
    _, korean = both(name)
    for target, anchor in LINK.findall(prose(korean)):
        if target.startswith(("http:", "https:")):
            continue
        file = (KOREAN / target) if target else KOREAN / name
        assert file.is_file(), target
        assert not anchor or anchor in anchors(file.read_text(encoding="utf-8")), (target, anchor)
