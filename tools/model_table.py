"""Writes the model table into README.md and README.ko.md from the installed cards: `python tools/model_table.py`."""

from __future__ import annotations

import re
from pathlib import Path

from adcore.cards import ModelCard
from adcore.registry import list_models, model_origin

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- models: begin (tools/model_table.py) -->", "<!-- models: end -->"
PAGES = ("README.md", "README.ko.md")


def table(cards: list[ModelCard]) -> str:
    """One row a method: its cards, family package, year, and what they need."""
    methods: dict[str, list[ModelCard]] = {}
    for card in cards:
        methods.setdefault(card.title, []).append(card)
    lines = ["| method | cards | package | year | weights and needs |", "|---|---|---|---|---|"]
    for title, group in sorted(methods.items(), key=lambda item: (model_origin(item[1][0].name).distribution, item[0])):
        needs = dict.fromkeys(need for card in group for need in (*card.required_backbones, *card.needs))
        names = ", ".join(f"`{card.name}`" for card in group)
        package = model_origin(group[0].name).distribution
        year = min(card.year for card in group)
        lines.append(f"| {title} | {names} | {package} | {year} | {', '.join(needs) or 'nothing'} |")
    return "\n".join(lines)


def filled(page: str) -> str:
    """The page's text with the table in its place."""
    text = (ROOT / page).read_text(encoding="utf-8")
    block = f"{BEGIN}\n{table(list_models())}\n{END}"
    return re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: block, text, flags=re.DOTALL)


if __name__ == "__main__":
    for name in PAGES:
        (ROOT / name).write_text(filled(name), encoding="utf-8")
