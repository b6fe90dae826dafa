"""FastFlow: a two-dimensional normalising flow on each feature map of a frozen backbone.

Yu et al., "FastFlow: Unsupervised Anomaly Detection and Localization via 2D Normalizing Flows", 2021 (arXiv 2111.07677).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
from adcore.backbones.features import create_features
from adcore.backbones.transformer import TransformerFeatures
from adcore.maps import highest, upsample
from adcore.model import AnomalyModel, Batch, Optimization, Prediction, Update
from adcore.training.plan import Plan
from FrEIA.framework import SequenceINN
from pydantic import Field
from torch import Tensor, nn

from adm_flow.blocks import CouplingBlock, MapNorm, convolutions


def build_flow(channels: int, steps: int, conv3x3_only: bool, hidden_ratio: float) -> SequenceINN:
    """The flow of one map (B, C, H, W): `steps` couplings whose subnets are 3x3 and 1x1 convolutions in turn."""
    flow = SequenceINN(channels, 1, 1)  # the parameters do not depend on height and width
    for step in range(steps):
        kernel_size = 3 if conv3x3_only or step % 2 == 0 else 1
        flow.append(CouplingBlock, subnet_constructor=convolutions(kernel_size, hidden_ratio), affine_clamping=2.0)
    return flow


class FastFlow(AnomalyModel):
    """Likelihood of every feature under flows that keep the map's geometry."""

    divisible = True

    def __init__(
        self,
        backbone: Annotated[str, Field(description="frozen feature network: a CNN, CaiT or DeiT")] = "wide_resnet50_2",
        layers: Annotated[
            tuple[str, ...], Field(min_length=1, description="its feature maps; one block of a transformer")
        ] = ("layer1", "layer2", "layer3"),
        weights: Annotated[str, Field(description='"pretrained", "random" or a file')] = "pretrained",
        flow_steps: Annotated[int, Field(ge=1, description="coupling blocks for each map")] = 8,
        conv3x3_only: Annotated[bool, Field(description="no 1x1 convolutions in between")] = False,
        hidden_ratio: Annotated[float, Field(gt=0, description="hidden channels of a subnet to its inputs")] = 1.0,
    ) -> None:
        super().__init__()
        self.features = create_features(backbone, layers, weights)
        # a transformer's tokens have already passed its own norm
        transformer = isinstance(self.features, TransformerFeatures)
        self.norms = nn.ModuleList(nn.Identity() if transformer else MapNorm(c) for c in self.features.channels)
        self.flows = nn.ModuleList(
            build_flow(c, flow_steps, conv3x3_only, hidden_ratio) for c in self.features.channels
        )

    def encode(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(z, log |det dz/dx|) of each map: (B, C, H, W), (B,)."""
        maps = self.features(images)
        return [flow(norm(x)) for x, norm, flow in zip(maps, self.norms, self.flows, strict=True)]

    def training_step(self, batch: Batch, step: int) -> Iterator[Update]:
        """Minimise -log p_X(x) = z² / 2 - log |det dz/dx| (eq. 2, without its constant), summed over the maps."""
        losses = [(0.5 * z.square().sum((1, 2, 3)) - log_det).mean() for z, log_det in self.encode(batch.images)]
        yield Update(torch.stack(losses).sum())

    def forward(self, images: Tensor) -> Prediction:
        """Minus the likelihood of each position, exp(-mean_c z² / 2), averaged over the maps; the score is the maximum."""
        probabilities = [torch.exp(-0.5 * z.square().mean(1)) for z, _ in self.encode(images)]  # (B, h, w)
        anomaly_map = -torch.stack([upsample(p, images.shape[-2:]) for p in probabilities]).mean(0)  # (B, H, W)
        return Prediction(highest(anomaly_map, self.roi_mask), anomaly_map)

    def configure_optimizers(self, plan: Plan) -> dict[str, Optimization]:
        """Adam on norms and flows."""
        parameters = [p for p in self.parameters() if p.requires_grad]
        return {"main": plan.optimization(parameters, "adam", learning_rate=1e-3, weight_decay=1e-5, fused=True)}
