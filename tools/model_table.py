"""Writes what the installed cards say into the READMEs and the pages on models: `python tools/model_table.py`."""

from __future__ import annotations

import re
from pathlib import Path

from adcore.cards import ModelCard
from adcore.registry import list_models, model_origin

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- models: begin (tools/model_table.py) -->", "<!-- models: end -->"


def table(cards: list[ModelCard]) -> str:
    """One row a method: its cards, family package, year, and what they need."""
    lines = ["| method | cards | package | year | weights and needs |", "|---|---|---|---|---|"]
    for title, group in by_method(cards):
        needs = dict.fromkeys(need for card in group for need in (*card.required_backbones, *card.needs))
        names = ", ".join(f"`{card.name}`" for card in group)
        package = model_origin(group[0].name).distribution
        year = min(card.year for card in group)
        lines.append(f"| {title} | {names} | {package} | {year} | {', '.join(needs) or 'nothing'} |")
    return "\n".join(lines)


def details(cards: list[ModelCard]) -> str:
    """A section a method: idea, paper, published accuracy, needs, and the defaults of its cards."""
    sections = []
    for title, group in by_method(cards):
        first = min(group, key=lambda card: len(card.name))
        published = dict.fromkeys(card.published for card in group if card.published)
        needs = dict.fromkeys(need for card in group for need in card.needs)
        lines = [f"### {title}", "", first.summary, "", f"- Paper: {first.paper}"]
        lines += [f"- MVTec AD, image / pixel AUROC % as published there: {'; '.join(published)}"] if published else []
        lines += [f"- Licence of the code: {', '.join(dict.fromkeys(card.licence for card in group))}"]
        lines += [f"- Needs: {'; '.join(needs)}"] if needs else []
        lines += ["- Trains on labelled anomalies: " + ", ".join(f"`{c.name}`" for c in group if c.supervised)] * any(
            card.supervised for card in group
        )
        lines += ["", "| card | weights | training | cost | batch | image | values |", "|---|---|---|---|---|---|---|"]
        lines += [defaults_row(card) for card in sorted(group, key=lambda card: card.name)]
        sections.append("\n".join(lines))
    return "\n\n".join(sections)


def defaults_row(card: ModelCard) -> str:
    """One row of the defaults table."""
    name = f"`{card.name}`" + "".join(f", `{alias}`" for alias in card.aliases)
    size = f"{card.image_size}" + (f", cropped to {card.crop_size}" if card.crop_size else "")
    size += f", multiples of {card.size_multiple}" if card.size_multiple > 1 else ""
    training = f"{card.epochs} epochs" if card.training == "gradient" else card.training
    values = {"none": "[0, 1]", "backbone": "the backbone's", "imagenet": "ImageNet"}[card.normalization]
    cells = (name, ", ".join(card.required_backbones) or "-", training, card.cost, card.batch_size, size, values)
    return f"| {' | '.join(map(str, cells))} |"


def by_method(cards: list[ModelCard]) -> list[tuple[str, list[ModelCard]]]:
    """Cards grouped by method, ordered by package and method."""
    methods: dict[str, list[ModelCard]] = {}
    for card in cards:
        methods.setdefault(card.title, []).append(card)
    return sorted(methods.items(), key=lambda item: (model_origin(item[1][0].name).distribution, item[0]))


PAGES = {"README.md": table, "README.ko.md": table, "docs/03-models.md": details, "docs/ko/03-models.md": details}


def filled(page: str) -> str:
    """The page's text with the table in its place."""
    text = (ROOT / page).read_text(encoding="utf-8")
    block = f"{BEGIN}\n{PAGES[page](list_models())}\n{END}"
    return re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: block, text, flags=re.DOTALL)


if __name__ == "__main__":
    for name in PAGES:
        (ROOT / name).write_text(filled(name), encoding="utf-8")
