"""`adcore info MODEL`: what a model is, and every setting that it takes."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from adcore.registry import model_card, model_class, model_origin


@click.command("info")
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Machine readable.")
def command(model: str, as_json: bool) -> None:
    """Show a model's idea, defaults, settings and needs."""
    from adcore.config import describe_config

    card, origin = model_card(model), model_origin(model)
    rows = describe_config(card, model_class(card))
    if as_json:
        config = [dict(zip(("key", "type", "default", "meaning"), row, strict=True)) for row in rows]
        click.echo(json.dumps({**asdict(card), "package": str(origin), "settings": config}, indent=2, default=str))
        return
    facts = {
        "idea": card.summary,
        "paper": card.paper,
        "family": f"{card.family} ({origin})",
        "also called": ", ".join(card.aliases),
        "MVTec AD": f"{card.published} (image / pixel AUROC %, as published)" if card.published else "",
        "weights": ", ".join(card.required_backbones),
        "needs": ", ".join(card.needs),
        "training": f"{card.epochs} epochs, batch {card.batch_size}, images {card.image_size}"
        + (f" cropped to {card.crop_size}" if card.crop_size else "")
        + f", normalization {card.normalization}"
        + (", labelled anomalies" if card.supervised else ""),
    }
    click.echo(f"{card.name}: {card.title} ({card.year})")
    for key, value in facts.items():
        if value:
            click.echo(f"  {key + ':':13}{value}")
    click.echo("  settings (--set KEY=VALUE):")
    for key, kind, default, meaning in rows:
        click.echo(f"    {key} = {default!r}  [{kind}] {meaning}")
    click.echo("    and of training: image_size, crop_size, normalization, resize, batch_size, learning_rate, ...")
