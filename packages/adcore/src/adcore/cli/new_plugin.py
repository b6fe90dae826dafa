"""`adcore new-plugin NAME`: create a plugin package that works without changes."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import click

from adcore.scaffold import write_plugin


@click.command("new-plugin")
@click.argument("name")
@click.option("--kind", type=click.Choice(["model", "dataset", "backbone"]), default="model", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path(), help="Folder to write into; default: here.")
def command(name: str, kind: str, out: Path) -> None:
    """Write a complete package NAME: plugin, a small working model, dataset or backbone, conformance test, README, CI."""
    folder = write_plugin(name, out, date.today().year, kind)
    click.echo(f"written to {folder}; next:")
    click.echo(f'  pip install -e "{folder}[test]"\n  pytest {folder}\n  adcore check-plugin {name}')
    click.echo(f'without a network: pip install --no-build-isolation --no-deps -e "{folder}" (needs hatchling)')
