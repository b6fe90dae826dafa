"""`adcore backbones list | where | verify | pull | pack`."""

from __future__ import annotations

from pathlib import Path

import click

from adcore.cli.list_backbones import command as list_backbones_command
from adcore.errors import WeightsError
from adcore.registry import backbone_card, list_backbones


@click.group("backbones")
def command() -> None:
    """List, verify, download and package backbone weights."""


command.add_command(list_backbones_command, "list")


@command.command("where")
@click.argument("name")
def where(name: str) -> None:
    """Print the weights file that would be used for NAME."""
    from adcore.backbones.resolve import resolve

    click.echo(str(resolve(name).path))


@command.command("verify")
@click.argument("names", nargs=-1)
def verify(names: tuple[str, ...]) -> None:
    """Verify the weights of NAMES, or all present ones, by loading them into their networks."""
    from adcore.backbones.build import create_backbone
    from adcore.backbones.digests import expected_digest
    from adcore.backbones.resolve import find, resolve

    present = [card.name for card in list_backbones() if find(card)]
    if not names and not present:
        raise WeightsError("no backbone weights are present; see: adcore backbones list")
    for name in names or present:
        found = resolve(name)
        create_backbone(name)
        known = "as its name says" if expected_digest(found.card, found.path) else "no published value to compare with"
        click.echo(f"{found.card.name}: ok, {found.path} (sha256 {found.sha256[:16]}..., {known})")


@command.command("pull")
@click.argument("name")
@click.option("--out", type=click.Path(path_type=Path), help="Folder; else backbone_dir, else the user's own.")
def pull(name: str, out: Path | None) -> None:
    """Download the weights of NAME (this command alone uses the network) and check their sha256."""
    from adcore.backbones import pull as downloads

    card = backbone_card(name)
    click.echo(f"{card.name}: {card.size_mb} MB from {card.hub or card.source} (licence: {card.licence})", err=True)
    click.echo(str(downloads.pull(card, out)))


@command.command("pack")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="The backbone whose weights FILE holds.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the wheel.")
@click.option("--as", "new_name", help="Register the weights as a backbone of this new name.")
def pack(file: Path, name: str, out: Path, new_name: str | None) -> None:
    """Package the weights FILE as a wheel. Where the wheel is installed, the backbone needs no other file."""
    from adcore.backbones import pack as wheels

    wheel = wheels.pack(file, name, out, new_name)
    click.echo(f"{wheel}\ninstall it on the target machine: pip install --no-index {wheel.name}")
