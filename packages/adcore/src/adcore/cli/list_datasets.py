"""`adcore list-datasets`: the dataset layouts that installed packages can read, without importing torch."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from adcore.cards import DatasetCard
from adcore.cli.common import show_problems
from adcore.plugins import load_plugins
from adcore.registry import list_datasets


@click.command("list-datasets")
@click.option("--json", "as_json", is_flag=True, help="Machine readable.")
def command(as_json: bool) -> None:
    """List the dataset layouts that `--data NAME:ROOT` can name, with the folders that each expects below ROOT.

    `adcore info NAME` shows the options of one.
    """
    plugins = load_plugins()
    cards = list_datasets()
    if as_json:
        origins = {name: origin for name, (_, origin) in plugins.cards[DatasetCard].items()}
        entries = [
            {**asdict(c), "package": origins[c.name].distribution, "package_version": origins[c.name].version}
            for c in cards
        ]
        click.echo(json.dumps(entries, indent=2, default=list))
    for card in [] if as_json else cards:
        also = f" (also: {', '.join(card.aliases)})" if card.aliases else ""
        click.echo(f"{card.name}: {card.title}{also}\n    {card.layout}")
    show_problems(plugins)
