"""DRAEM: a discriminatively trained reconstruction embedding (Zavrtanik et al., ICCV 2021), optionally with SSPCAB."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from adcore.maps import highest
from adcore.model import AnomalyModel, Batch, Fit, Optimization, Prediction, Update
from adcore.training.plan import Plan
from pydantic import Field
from torch import Tensor, nn

from adm_recon.blocks import check_positions, check_size, double_conv, up_conv
from adm_recon.losses import focal_loss, ssim_map
from adm_recon.sspcab import SSPCAB
from adm_recon.synthetic import Blend, blended, draw_anomalies, texture_source

MILESTONES = (400 / 700, 600 / 700)  # shares of the epochs after which the rate falls to a tenth


class ReconstructiveSubnetwork(nn.Module):
    """Encoder and decoder without skips: turns a damaged image back into a normal one."""

    def __init__(self, width: int, sspcab: bool) -> None:
        super().__init__()
        w = width
        self.encoder = nn.Sequential(
            double_conv(3, w, w),
            nn.MaxPool2d(2),
            double_conv(w, 2 * w, 2 * w),
            nn.MaxPool2d(2),
            double_conv(2 * w, 4 * w, 4 * w),
            nn.MaxPool2d(2),
            double_conv(4 * w, 8 * w, 8 * w),
            nn.MaxPool2d(2),
        )
        self.bottleneck = SSPCAB(8 * w) if sspcab else double_conv(8 * w, 8 * w, 8 * w)
        self.decoder = nn.Sequential(
            up_conv(8 * w, 8 * w),
            double_conv(8 * w, 8 * w, 4 * w),
            up_conv(4 * w, 4 * w),
            double_conv(4 * w, 4 * w, 2 * w),
            up_conv(2 * w, 2 * w),
            double_conv(2 * w, 2 * w, w),
            up_conv(w, w),
            double_conv(w, w, w),
            nn.Conv2d(w, 3, 3, padding=1),
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, H, W) -> reconstruction (B, 3, H, W), and the bottleneck's input and output (B, 8w, H/16, W/16)."""
        before = self.encoder(images)
        after = self.bottleneck(before)
        return self.decoder(after), before, after


class DiscriminativeSubnetwork(nn.Module):
    """U-Net that sees the image beside its reconstruction and segments what differs."""

    def __init__(self, width: int) -> None:
        super().__init__()
        w = width
        widths = (w, 2 * w, 4 * w, 8 * w, 8 * w, 8 * w)  # of act1 .. act6
        self.encoder = nn.ModuleList(
            double_conv(before, after, after) for before, after in zip((6, *widths), widths, strict=False)
        )
        self.pool = nn.MaxPool2d(2)
        deep = [(8 * w, 8 * w, 8 * w), (8 * w, 4 * w, 8 * w), (4 * w, 2 * w, 4 * w), (2 * w, w, 2 * w), (w, w, w)]
        self.up = nn.ModuleList(up_conv(before, after) for before, after, _ in deep)
        self.merge = nn.ModuleList(double_conv(after + skip, after, after) for _, after, skip in deep)
        self.out = nn.Conv2d(w, 2, 3, padding=1)

    def encode(self, joined: Tensor) -> list[Tensor]:
        """(B, 6, H, W) -> act1 .. act6, each half the size of the one before."""
        activations = [self.encoder[0](joined)]
        for block in self.encoder[1:]:
            activations.append(block(self.pool(activations[-1])))
        return activations

    def decode(self, activations: list[Tensor]) -> Tensor:
        """act1 .. act6 -> logits (B, 2, H, W) of normal and anomalous."""
        x = activations[-1]
        for up, merge, skip in zip(self.up, self.merge, activations[-2::-1], strict=True):
            x = merge(torch.cat([up(x), skip], dim=1))
        return self.out(x)


def papers_optimizer(plan: Plan, parameters: Iterable[Tensor]) -> dict[str, Optimization]:
    """Adam, whose rate falls at the paper's shares of the epochs."""
    milestones = [max(1, round(share * plan.epochs)) for share in MILESTONES]
    schedule = {"type": "multisteplr", "milestones": milestones, "gamma": 0.1}
    return {"main": plan.optimization(parameters, "adam", learning_rate=1e-4, scheduler=schedule, fused=True)}


class DRAEM(AnomalyModel):
    """Learns to repair synthetic anomalies and to segment them; images (B, 3, H, W) in [0, 1], sides multiples of 32.

    Zavrtanik et al., ICCV 2021; with `sspcab` after Ristea et al., CVPR 2022. The score is the map's maximum.
    """

    divisible = True

    def __init__(
        self,
        *,
        textures: Annotated[
            str | None,
            Field(description="folder of texture images, such as DTD; procedural textures when none is given"),
        ] = None,
        beta: Annotated[
            tuple[float, float], Field(description="opacity of the texture in a synthetic anomaly, lowest and highest")
        ] = (0.1, 1.0),
        anomaly_probability: Annotated[float, Field(ge=0, le=1, description="share of damaged training images")] = 0.5,
        sspcab: Annotated[bool, Field(description="SSPCAB as bottleneck of the reconstructive subnetwork")] = False,
        sspcab_weight: Annotated[float, Field(ge=0, description="weight of the SSPCAB loss")] = 0.1,
        reconstructive_width: Annotated[int, Field(ge=1, description="channels of its first block")] = 128,
        discriminative_width: Annotated[int, Field(ge=1, description="channels of its first block")] = 64,
        score_window: Annotated[
            int, Field(ge=1, description="side of the mean filter before the map's maximum (21 in the paper; 1: none)")
        ] = 1,
    ) -> None:
        super().__init__()
        self.reconstructive = ReconstructiveSubnetwork(reconstructive_width, sspcab)
        self.discriminative = DiscriminativeSubnetwork(discriminative_width)
        self.blend = Blend(beta, anomaly_probability)
        self.textures, self.sspcab_weight, self.score_window = textures, sspcab_weight if sspcab else 0.0, score_window
        self.source: Any = None  # of textures; opened when a fit starts, a trained model does not need it

    def check_run(self, images: int, size: tuple[int, int]) -> None:
        check_positions(size, 32, "draem")
        if self.textures is not None:
            texture_source(self.textures, "draem")

    def on_fit_start(self, fit: Fit) -> None:
        self.source = texture_source(self.textures, "draem")

    def damage(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) with synthetic anomalies, and their masks (B, H, W) bool."""
        size = tuple(batch.images.shape[-2:])
        drawn = batch.drawn(lambda count: draw_anomalies(count, size, self.source, self.blend))
        return blended(batch.images, *drawn)

    def losses(self, images: Tensor, damaged: Tensor, mask: Tensor) -> tuple[dict[str, Tensor], list[Tensor]]:
        """The terms of the loss by name, and the activations act1 .. act6 of the discriminative encoder."""
        reconstruction, before, after = self.reconstructive(damaged)  # I_r
        activations = self.discriminative.encode(torch.cat([damaged, reconstruction], dim=1))
        terms = {
            "l2": F.mse_loss(reconstruction, images),
            "ssim": (1 - ssim_map(reconstruction, images)).mean(),
            "focal": focal_loss(self.discriminative.decode(activations), mask),
        }
        if self.sspcab_weight:
            terms["sspcab"] = self.sspcab_weight * F.mse_loss(after, before)
        return terms, activations

    def training_step(self, batch: Batch, step: int) -> Iterator[Update]:
        check_size(batch.images, 32, "draem")
        damaged, mask = self.damage(batch)
        terms, _ = self.losses(batch.images, damaged, mask)
        yield Update(sum(terms.values()), logs={name: term.detach() for name, term in terms.items()})

    def configure_optimizers(self, plan: Plan) -> dict[str, Optimization]:
        return papers_optimizer(plan, self.parameters())

    def segment(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, 3, H, W) -> probability of an anomaly at each pixel (B, H, W), and act1 .. act6."""
        check_size(images, 32, "draem")
        reconstruction, _, _ = self.reconstructive(images)
        activations = self.discriminative.encode(torch.cat([images, reconstruction], dim=1))
        return self.discriminative.decode(activations).softmax(dim=1)[:, 1], activations  # M_o

    def image_score(self, anomaly_map: Tensor, seen: np.ndarray | None) -> Tensor:
        """(B, H, W) -> (B,), the maximum of the map where it counts, smoothed first when `score_window` says so."""
        smooth = F.avg_pool2d(anomaly_map, self.score_window, 1, self.score_window // 2)
        return highest(smooth, seen)

    def forward(self, images: Tensor) -> Prediction:
        anomaly_map, _ = self.segment(images)
        return Prediction(self.image_score(anomaly_map, self.roi_mask), anomaly_map)
