"""`adcore doctor`: what is installed, what is broken, what is missing."""

from __future__ import annotations

import platform
import sys

import click

from adcore import __version__
from adcore.cards import BackboneCard, ModelCard
from adcore.plugin_probe import probe
from adcore.plugins import discover, load_plugins


@click.command("doctor")
@click.option(
    "--plugin-seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="Time that a plugin may take to load.",
)
def command(plugin_seconds: float) -> None:
    """Check plugins, weights and devices; exit 1 when a plugin is broken.

    Each plugin is first loaded in a process of its own, so that one that hangs or ends the process is found too.
    """
    click.echo(f"adcore {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    problems = [problem for _, origin in discover() if (problem := probe(origin, plugin_seconds))]
    plugins = load_plugins(frozenset(problem.origin.plugin for problem in problems))
    problems += plugins.problems
    models = len(plugins.cards[ModelCard])
    click.echo(f"plugins: {len(plugins.origins)} working, {len(problems)} broken, {models} models")
    for origin in plugins.origins:
        click.echo(f"  ok      {origin.plugin} ({origin})")
    for problem in problems:
        click.echo(f"  BROKEN  {problem}")
        click.echo("          " + problem.details.strip().replace("\n", "\n          "))
    for (_, name), origins in plugins.duplicates.items():
        click.echo(f"  TWICE   '{name}' by {' and '.join(str(origin) for origin in origins)}; uninstall one")
    import torch

    gpu = f"{torch.cuda.device_count()} CUDA devices" if torch.cuda.is_available() else "no GPU"
    click.echo(f"torch {torch.__version__}: {gpu}, {torch.get_num_threads()} CPU threads")
    from adcore.backbones.resolve import find, search_folders

    folders = ", ".join(str(folder) for folder, _ in search_folders())
    present = [card.name for card, _ in plugins.cards[BackboneCard].values() if find(card)]
    click.echo(f"weights present: {', '.join(present) or 'none'} (folders searched: {folders})")
    if problems or plugins.duplicates:
        sys.exit(1)
