"""The whole plugin contract: a few hooks, all but one returning plain cards.

A plugin is a package with an entry point in the group `adcore` whose value is a module that implements any of these:

    [project.entry-points.adcore]
    mymodel = "my_package.plugin"

That module imports `adcore` and never torch; what a card points at is imported on first use.
"""

import click
import pluggy

from adcore.cards import BackboneCard, DatasetCard, ExecutorCard, ExporterCard, MetricCard, ModelCard

PROJECT = "adcore"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def adcore_register_models() -> list[ModelCard]:
    """Models of this package, one card each; a name is unique over all installed packages."""


@hookspec
def adcore_register_datasets() -> list[DatasetCard]:
    """Dataset layouts that this package can read."""


@hookspec
def adcore_register_backbones() -> list[BackboneCard]:
    """Pretrained networks that this package describes, or carries the weights of."""


@hookspec
def adcore_register_metrics() -> list[MetricCard]:
    """Metrics of this package, computed in every evaluation beside adcore's own."""


@hookspec
def adcore_register_executors() -> list[ExecutorCard]:
    """Ways to start the processes of `adcore run`, chosen with `--executor NAME`."""


@hookspec
def adcore_register_exporters() -> list[ExporterCard]:
    """Forms in which `adcore export` writes a model, chosen with `--to NAME`."""


@hookspec
def adcore_register_commands(cli: click.Group) -> None:
    """Add commands to `adcore` with `cli.add_command` or `@cli.command`; import what is heavy inside the command."""
