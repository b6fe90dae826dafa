"""`adcore list-models`: names, families and needs, without importing torch."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict

import click

from adcore.cards import ModelCard
from adcore.cli.common import show_problems
from adcore.plugins import load_plugins
from adcore.registry import list_models, model_origin

LONG_NEEDS = 32  # characters; only longer needs move the paper column


@click.command("list-models")
@click.option("--family", help="Only this family.")
@click.option("--exportable", is_flag=True, help="Only models that adcore export writes.")
@click.option("--json", "as_json", is_flag=True, help="Machine readable.")
def command(family: str | None, exportable: bool, as_json: bool) -> None:
    """List the installed models."""
    cards = [card for card in list_models(family) if not (exportable and card.not_exportable)]
    if as_json:
        click.echo(json.dumps([_entry(card) for card in cards], indent=2, default=list))
    elif cards:
        _table(cards)
    elif family and list_models():
        families = ", ".join(sorted({card.family for card in list_models()}))
        raise click.UsageError(f"no installed model is of family '{family}'; families: {families}")
    else:
        click.echo("No models are installed. Install a family, e.g.: pip install adm-memory")
    show_problems(load_plugins())


def _entry(card: ModelCard) -> dict:
    origin = model_origin(card.name)
    entry = {**asdict(card), "required_backbones": card.required_backbones}
    return entry | {"package": origin.distribution, "package_version": origin.version}


def _table(cards: list[ModelCard]) -> None:
    """One line a model; on a terminal it is cut where the terminal ends, as `ps` does."""
    header = ("MODEL", "FAMILY", "YEAR", "METHOD", "NEEDS", "PAPER")
    rows = [
        (c.name, c.family, str(c.year), c.title, ", ".join((*c.required_backbones, *c.needs)) or "-", c.paper)
        for c in cards
    ]
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(4)] + [LONG_NEEDS]
    end = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for row in (header, *rows):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        click.echo("  ".join([*cells, row[-1]])[:end])
