"""STFPM: student-teacher feature pyramid matching (Wang et al., BMVC 2021)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
import torch.nn.functional as F
from adcore.backbones.features import FeatureExtractor
from adcore.maps import highest, upsample
from adcore.model import AnomalyModel, Batch, Optimization, Prediction, Update
from adcore.training.plan import Plan
from pydantic import Field
from torch import Tensor


def feature_distance(teacher: Tensor, student: Tensor) -> Tensor:
    """Half the squared distance of unit-length features at each position: (B, C, h, w) twice -> (B, h, w) in [0, 2]."""
    difference = F.normalize(teacher, dim=1) - F.normalize(student, dim=1)  # eq. 1: both on the unit sphere
    return 0.5 * difference.square().sum(1)


class STFPM(AnomalyModel):
    """A student of the teacher's own architecture learns to give the teacher's features on normal images only.

    Where the student was never taught, the two differ, at several resolutions.
    """

    divisible = True

    def __init__(
        self,
        backbone: Annotated[str, Field(description="network of teacher and student")] = "resnet50",
        layers: Annotated[tuple[str, ...], Field(min_length=1, description="its layers that are matched")] = (
            "layer1",
            "layer2",
            "layer3",
        ),
        weights: Annotated[str, Field(description="the teacher's: pretrained, random, or a file")] = "pretrained",
    ) -> None:
        super().__init__()
        self.teacher = FeatureExtractor(backbone, layers, weights)
        self.student = FeatureExtractor(backbone, layers, weights="random", frozen=False)

    def distances(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> one (B, h_l, w_l) for each layer l."""
        with torch.no_grad():
            teacher = self.teacher(images)
        return [feature_distance(t, s) for t, s in zip(teacher, self.student(images), strict=True)]

    def training_step(self, batch: Batch, step: int) -> Iterator[Update]:
        """Eq. 2 and 3: the mean distance over positions and images, summed over the layers with equal weights alpha."""
        yield Update(sum(distance.mean() for distance in self.distances(batch.images)))

    def configure_optimizers(self, plan: Plan) -> dict[str, Optimization]:
        """SGD as in the paper; the teacher is frozen."""
        options = {"learning_rate": 0.4, "momentum": 0.9, "weight_decay": 1e-4, "fused": True}
        return {"main": plan.optimization(self.student.parameters(), "sgd", **options)}

    def forward(self, images: Tensor) -> Prediction:
        """Eq. 4: the product of the layers' upsampled distance maps; the score is the map's maximum."""
        maps = [upsample(distance, images.shape[-2:]) for distance in self.distances(images)]
        anomaly_map = torch.stack(maps).prod(0)  # (B, H, W)
        return Prediction(highest(anomaly_map, self.roi_mask), anomaly_map)
