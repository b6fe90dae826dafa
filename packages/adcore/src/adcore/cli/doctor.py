"""`adcore doctor`: what is installed, what is broken, what is missing."""

from __future__ import annotations

import platform
import sys

import click

from adcore import __version__
from adcore.plugins import load_plugins
from adcore.registry import list_backbones, list_models


@click.command("doctor")
def command() -> None:
    """Check plugins, weights and devices; exit 1 when a plugin is broken."""
    plugins = load_plugins()
    click.echo(f"adcore {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    click.echo(f"plugins: {len(plugins.origins)} working, {len(plugins.problems)} broken, {len(list_models())} models")
    for origin in plugins.origins:
        click.echo(f"  ok      {origin.plugin} ({origin})")
    for problem in plugins.problems:
        click.echo(f"  BROKEN  {problem}")
        click.echo("          " + problem.details.strip().replace("\n", "\n          "))
    for (_, name), origins in plugins.duplicates.items():
        click.echo(f"  TWICE   '{name}' by {' and '.join(str(origin) for origin in origins)}; uninstall one")
    import torch

    gpu = f"{torch.cuda.device_count()} CUDA devices" if torch.cuda.is_available() else "no GPU"
    click.echo(f"torch {torch.__version__}: {gpu}, {torch.get_num_threads()} CPU threads")
    from adcore.backbones.resolve import find, search_folders

    folders = ", ".join(str(folder) for folder, _ in search_folders())
    present = [card.name for card in list_backbones() if find(card)]
    click.echo(f"weights present: {', '.join(present) or 'none'} (folders searched: {folders})")
    if plugins.problems or plugins.duplicates:
        sys.exit(1)
