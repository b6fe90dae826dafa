"""The dataset layouts and backbones of adcore itself, registered through the public hooks."""

from adcore.backbones.cards import BACKBONE_CARDS
from adcore.cards import BackboneCard, DatasetCard
from adcore.data.builtin import DATASET_CARDS
from adcore.hookspecs import hookimpl


@hookimpl
def adcore_register_datasets() -> list[DatasetCard]:
    return DATASET_CARDS


@hookimpl
def adcore_register_backbones() -> list[BackboneCard]:
    return BACKBONE_CARDS
