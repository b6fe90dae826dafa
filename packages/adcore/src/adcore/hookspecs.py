"""The whole plugin contract: three hooks, each returning plain cards.

A plugin is a package with an entry point in the group `adcore` whose value is a module that implements any of these:

    [project.entry-points.adcore]
    mymodel = "my_package.plugin"

That module imports `adcore` and never torch; what a card points at is imported on first use.
"""

import pluggy

from adcore.cards import BackboneCard, DatasetCard, ModelCard

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
