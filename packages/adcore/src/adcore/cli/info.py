"""`adcore info NAME`: what a model or dataset layout is, and every setting that it takes."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from adcore.cards import DatasetCard, ModelCard
from adcore.plugins import load_plugins
from adcore.registry import backbone_card, dataset_card, model_card, model_class, model_origin, reader_class

COST = {"light": "a CPU is enough", "medium": "trains on a CPU, faster on a GPU", "heavy": "train it on a GPU"}


@click.command("info")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Machine readable.")
def command(name: str, as_json: bool) -> None:
    """Show a model's idea, defaults, settings and needs, or the layout and options of a dataset."""
    known = load_plugins().aliases
    if name in known[DatasetCard] and name not in known[ModelCard]:
        _show_dataset(dataset_card(name), as_json)
    else:
        _show_model(model_card(name), as_json)


def _show_model(card: ModelCard, as_json: bool) -> None:
    from adcore.config import describe_config

    origin = model_origin(card.name)
    rows = describe_config(card, model_class(card))
    if as_json:
        click.echo(
            json.dumps({**asdict(card), "package": str(origin), "settings": _dicts(rows)}, indent=2, default=str)
        )
        return
    facts = {
        "idea": card.summary,
        "paper": card.paper,
        "family": f"{card.family} ({origin})",
        "also called": ", ".join(card.aliases),
        "MVTec AD": f"{card.published} (image / pixel AUROC %, as published)" if card.published else "",
        "input": f"{card.channels} channels"
        + (f", sides multiples of {card.size_multiple}" * (card.size_multiple > 1)),
        "cost": f"{card.cost} ({COST[card.cost]})",
        "licence": "; ".join(_licences(card)),
        "weights": ", ".join(card.required_backbones),
        "needs": ", ".join(card.needs),
        "training": f"{card.training}, {card.epochs} epochs, batch {card.batch_size}, images {card.image_size}"
        + (f" cropped to {card.crop_size}" if card.crop_size else "")
        + f", normalization {card.normalization}"
        + (", labelled anomalies" if card.supervised else "")
        + (", unlabelled images" if card.unlabelled else ""),
    }
    click.echo(f"{card.name}: {card.title} ({card.year})")
    for key, value in facts.items():
        if value:
            click.echo(f"  {key + ':':13}{value}")
    click.echo("  settings (--set KEY=VALUE):")
    for key, kind, default, meaning in rows:
        click.echo(f"    {key} = {default!r}  [{kind}] {meaning}")
    click.echo("    and of training: image_size, crop_size, normalization, resize, batch_size, learning_rate, ...")


def _licences(card: ModelCard) -> list[str]:
    code = [f"code {card.licence}"] if card.licence else []
    return code + [f"weights of {name}: {backbone_card(name).licence}" for name in card.required_backbones]


def _show_dataset(card: DatasetCard, as_json: bool) -> None:
    from adcore.config import describe_fields, option_fields

    rows, origin = (
        describe_fields(option_fields(reader_class(card.name))),
        load_plugins().cards[DatasetCard][card.name][1],
    )
    if as_json:
        click.echo(json.dumps({**asdict(card), "package": str(origin), "options": _dicts(rows)}, indent=2, default=str))
        return
    click.echo(f"{card.name}: {card.title} ({origin})\n  layout:      {card.layout}")
    if card.aliases:
        click.echo(f"  also called: {', '.join(card.aliases)}")
    click.echo("  options (--data-option KEY=VALUE):" if rows else "  options:     none")
    for key, kind, default, meaning in rows:
        click.echo(f"    {key} = {default!r}  [{kind}] {meaning}")


def _dicts(rows: list[tuple[str, str, object, str]]) -> list[dict[str, object]]:
    return [dict(zip(("key", "type", "default", "meaning"), row, strict=True)) for row in rows]
