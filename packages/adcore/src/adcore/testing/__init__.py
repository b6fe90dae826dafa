"""For plugin authors: the conformance kit and small data to test with. Needs pytest."""

from adcore.testing.backbone_conformance import BackboneConformance
from adcore.testing.batch_conformance import BatchConformance
from adcore.testing.card_conformance import CardConformance
from adcore.testing.conformance import ModelConformance
from adcore.testing.data_conformance import DatasetConformance
from adcore.testing.offline import sockets_forbidden
from adcore.testing.tiny import fit_tiny, tiny_batches, write_tiny_mvtec

__all__ = [
    "BackboneConformance",
    "BatchConformance",
    "CardConformance",
    "DatasetConformance",
    "ModelConformance",
    "fit_tiny",
    "sockets_forbidden",
    "tiny_batches",
    "write_tiny_mvtec",
]
