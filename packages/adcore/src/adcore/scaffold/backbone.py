"""The files of a new backbone."""

PLUGIN = '''\
"""What @name@ registers: cards only, no torch, so that listing stays quick."""

from adcore.cards import BackboneCard
from adcore.hookspecs import hookimpl


@hookimpl
def adcore_register_backbones() -> list[BackboneCard]:
    """One card for each pretrained network that models can name: --set backbone=@name@."""
    return [
        BackboneCard(
            name="@name@",
            architecture="resnet18",  # of timm; to be replaced by yours
            filenames=("@name@.pth",),  # accepted in the backbone folder
            source="put the address of the weights file here",
            licence="put the licence of the weights here",
            size_mb=45,
        )
    ]
'''
CONFORMANCE = """\
from adcore.testing import BackboneConformance


class Test@class@(BackboneConformance):
    backbone = "@name@"
"""
