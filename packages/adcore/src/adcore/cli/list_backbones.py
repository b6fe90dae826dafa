"""`adcore list-backbones`: every known backbone, and where its weights are; `adcore backbones list` is the same."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from adcore.cli.common import show_problems
from adcore.errors import AdcoreError
from adcore.plugins import load_plugins
from adcore.registry import backbone_card, list_backbones, list_models


@click.command("list-backbones")
@click.option("--json", "as_json", is_flag=True, help="Machine readable.")
def command(as_json: bool) -> None:
    """List the known backbones: where the weights are, or that they are missing, and how many installed models use them."""
    from adcore.backbones.resolve import find

    used = _used()
    entries = []
    for card in list_backbones():
        found = find(card)
        weights = {"origin": found.origin, "path": str(found.path)} if found else None
        entries.append({**asdict(card), "weights": weights, "models": used.get(card.name, [])})
    if as_json:
        click.echo(json.dumps(entries, indent=2, default=list))
    for entry in [] if as_json else entries:
        weights = entry["weights"]
        click.echo(f"{entry['name']:34}{entry['size_mb']:>6} MB  {len(entry['models']):>2} models  {entry['licence']}")
        click.echo(f"    {weights['origin']}: {weights['path']}" if weights else f"    missing ({entry['source']})")
    show_problems(load_plugins())


def _used() -> dict[str, list[str]]:
    """Backbone -> installed models that need it."""
    used: dict[str, list[str]] = {}
    for card in list_models():
        for name in card.required_backbones:
            try:
                used.setdefault(backbone_card(name).name, []).append(card.name)
            except AdcoreError as error:  # unknown, or claimed by two packages: the rest is listed all the same
                click.echo(f"adcore: {card.name}: {error}", err=True)
    return used
