"""DRAEM-SevNet: DRAEM whose discriminative encoder also tells how severe an anomaly is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from adcore.model import AnomalyModel, Batch, Optimization, Prediction, Update
from adcore.training.plan import Plan
from pydantic import Field
from torch import Tensor, nn

from adm_recon.blocks import check_positions, check_size
from adm_recon.draem import DRAEM, papers_optimizer
from adm_recon.synthetic import CutPaste, cut_paste

WIDTHS = (1, 2, 4, 8, 8, 8)  # of act1 .. act6, in base widths


def mlp(inputs: int) -> nn.Sequential:
    """(B, inputs) -> (B, 1) through 128 and 64 hidden units."""
    layers = nn.Sequential(
        nn.Linear(inputs, 128),
        nn.ReLU(inplace=True),
        nn.Dropout(0.1),
        nn.Linear(128, 64),
        nn.ReLU(inplace=True),
        nn.Dropout(0.1),
        nn.Linear(64, 1),
    )
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return layers


class PooledHead(nn.Module):
    """`gap`: the mean of every channel, then an MLP."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mlp = mlp(channels)

    def forward(self, activations: list[Tensor]) -> Tensor:
        """Activations (B, C_i, H_i, W_i) with sum of C_i = channels -> severity (B,)."""
        return self.mlp(torch.cat([act.mean((2, 3)) for act in activations], dim=1))[:, 0]


class SpatialHead(nn.Module):
    """`spatial_aware`: attention over positions, a convolution, a 4 x 4 grid, then an MLP that still sees where."""

    GRID = 4

    def __init__(self, channels: int, attention: bool, hidden: int = 128) -> None:
        super().__init__()
        self.attention = nn.Conv2d(channels, 1, 1) if attention else None
        self.conv = nn.Conv2d(channels, hidden, 3, padding=1)
        self.mlp = mlp(hidden * self.GRID**2)

    def forward(self, activations: list[Tensor]) -> Tensor:
        """Activations (B, C_i, H_i, W_i), brought to the size of the last one -> severity (B,)."""
        size = activations[-1].shape[-2:]
        x = torch.cat([F.adaptive_avg_pool2d(act, size) for act in activations], dim=1)
        if self.attention is not None:
            x = x * self.attention(x).sigmoid()
        x = F.adaptive_avg_pool2d(self.conv(x).relu(), self.GRID)
        return self.mlp(x.flatten(1))[:, 0]


class DRAEMSevNet(AnomalyModel):
    """DRAEM on cut-paste anomalies of known severity, which a head reads off its encoder and which joins the score.

    Images (B, 3, H, W) in [0, 1], sides multiples of 32. The score is in [0, 1]: the map's maximum and the predicted
    severity, each in [0, 1], averaged or the larger of both.
    """

    def __init__(
        self,
        *,
        severity_head: Annotated[Literal["gap", "spatial_aware"], Field(description="how the head pools")] = "gap",
        multiscale: Annotated[bool, Field(description="the head reads act2..act6 instead of act6 alone")] = False,
        attention: Annotated[bool, Field(description="sigmoid attention in the spatial_aware head")] = True,
        severity_weight: Annotated[float, Field(ge=0, description="of the severity loss; 0 trains DRAEM alone")] = 0.5,
        severity_loss: Annotated[Literal["mse", "smooth_l1"], Field(description="between severities")] = "mse",
        severity_max: Annotated[float, Field(gt=0, description="largest severity of a synthetic anomaly")] = 1.0,
        score_combination: Annotated[
            Literal["simple_average", "weighted_average", "maximum"], Field(description="of mask score and severity")
        ] = "simple_average",
        score_weight: Annotated[
            float, Field(ge=0, le=1, description="of the severity in weighted_average; 0: mask score alone")
        ] = 0.5,
        patch_width: Annotated[
            tuple[float, float], Field(description="of a synthetic anomaly to the image's width, lowest and highest")
        ] = (0.05, 0.3),
        patch_ratio: Annotated[tuple[float, float], Field(description="its height to its width, in pixels")] = (
            0.5,
            2.0,
        ),
        patch_count: Annotated[int, Field(ge=1, description="most patches of one anomaly")] = 1,
        anomaly_probability: Annotated[float, Field(ge=0, le=1, description="share of damaged training images")] = 0.5,
        reconstructive_width: Annotated[int, Field(ge=1, description="channels of its first block")] = 128,
        discriminative_width: Annotated[int, Field(ge=1, description="channels of its first block")] = 64,
    ) -> None:
        super().__init__()
        self.draem = DRAEM(reconstructive_width=reconstructive_width, discriminative_width=discriminative_width)
        self.first = 1 if multiscale else 5  # of the activations that the head reads
        channels = discriminative_width * sum(WIDTHS[self.first :])
        self.head = PooledHead(channels) if severity_head == "gap" else SpatialHead(channels, attention)
        self.anomaly = CutPaste(patch_width, patch_ratio, patch_count, severity_max, anomaly_probability)
        self.severity_weight, self.severity_max = severity_weight, severity_max
        self.severity_loss = {"mse": F.mse_loss, "smooth_l1": F.smooth_l1_loss}[severity_loss]
        self.score_combination, self.score_weight = score_combination, score_weight

    def damage(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, H, W) -> images with synthetic anomalies, their masks (B, H, W) bool, their severities (B,)."""
        return cut_paste(images, self.anomaly)

    def check_run(self, images: int, size: tuple[int, int]) -> None:
        check_positions(size, 32, "draem-sevnet")

    def training_step(self, batch: Batch, step: int) -> Iterator[Update]:
        check_size(batch.images, 32, "draem-sevnet")
        damaged, mask, severity = self.damage(batch.images)
        terms, activations = self.draem.losses(batch.images, damaged, mask)
        if self.severity_weight:
            predicted = self.head(activations[self.first :])
            terms["severity"] = self.severity_weight * self.severity_loss(predicted, severity)
        yield Update(sum(terms.values()), logs={name: term.detach() for name, term in terms.items()})

    def configure_optimizers(self, plan: Plan) -> dict[str, Optimization]:
        return papers_optimizer(plan, self.parameters())

    def segment(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) -> DRAEM's anomaly map (B, H, W), and the predicted severity (B,), not yet clamped."""
        anomaly_map, activations = self.draem.segment(images)
        return anomaly_map, self.head(activations[self.first :])

    def forward(self, images: Tensor) -> Prediction:
        anomaly_map, severity = self.segment(images)
        mask_score = self.draem.image_score(anomaly_map, self.roi_mask)
        severity_score = (severity.clamp(min=0) / self.severity_max).clamp(max=1)
        if self.score_combination == "maximum":
            return Prediction(torch.maximum(mask_score, severity_score), anomaly_map)
        weight = 0.5 if self.score_combination == "simple_average" else self.score_weight
        return Prediction((1 - weight) * mask_score + weight * severity_score, anomaly_map)
