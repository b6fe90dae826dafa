"""U-Flow: one U-shaped normalising flow over the scales of a backbone, with an unsupervised threshold.

Tailanian, Pardo, Musé, "U-Flow: A U-shaped Normalizing Flow for Anomaly Detection with Unsupervised Threshold", Journal of
Mathematical Imaging and Vision 2024 (arXiv 2211.12353).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from adcore.backbones.features import create_features
from adcore.backbones.transformer import TransformerFeatures
from adcore.errors import ConfigError
from adcore.maps import highest, upsample
from adcore.model import AnomalyModel, Batch, Optimization, Prediction, Update
from adcore.training.plan import Plan
from FrEIA.framework import GraphINN, InputNode, Node, OutputNode
from FrEIA.modules import Concat, IRevNetUpsampling, Split
from pydantic import Field
from scipy.stats import binom, chi2
from torch import Tensor, nn

from adm_flow.blocks import CouplingBlock, MapNorm, convolutions
from adm_flow.vit import MultiScaleCait

WINDOW = 7  # side of the a contrario test's window on the finest scale; halved with every coarser one


def build_flow(channels: list[int], steps: int, clamp: float, hidden_ratio: float) -> GraphINN:
    """The U: maps (B, C_i, H / 2^i, W / 2^i), finest first, to latent maps of the same sizes, coarsest first.

    A stage flows the coarsest map; one half of its result is z of that scale, the other half is rearranged to twice the
    size, joins the next finer map, and so on. The parameters do not depend on H and W.
    """
    sizes = [2 ** (len(channels) - 1 - i) for i in range(len(channels))]
    inputs = [InputNode(c, s, s, name=f"input{i}") for i, (c, s) in enumerate(zip(channels, sizes, strict=True))]
    nodes, outputs = list(inputs), []
    flowing, width = inputs[-1].out0, channels[-1]
    for i in reversed(range(len(channels))):
        for step in range(steps):
            options = {"subnet_constructor": convolutions(1 if step % 2 else 3, hidden_ratio), "affine_clamping": clamp}
            nodes.append(Node(flowing, CouplingBlock, options, name=f"coupling{i}_{step}"))
            flowing = nodes[-1].out0
        if i > 0:
            up = max(width // 8, 1) * 4  # about half, in fours: four channels become one of twice the size
            split = Node(flowing, Split, {"section_sizes": [up, width - up]}, name=f"split{i}")
            larger = Node(split.out0, IRevNetUpsampling, {}, name=f"upsample{i}")
            joined = Node([inputs[i - 1].out0, larger.out0], Concat, {"dim": 0}, name=f"concat{i}")
            nodes += [split, larger, joined]
            flowing, width = joined.out0, up // 4 + channels[i - 1]
            outputs.append(OutputNode(split.out1, name=f"z{i}"))
    outputs.append(OutputNode(flowing, name="z0"))
    return GraphINN(nodes + outputs)


def log_tail(z: Tensor, window: int, quantile: float = 0.5) -> Tensor:
    """log10 of the probability that a normal image shows as many outliers around each position; (B, C, h, w) -> (B, h, w).

    The a contrario test in its form over windows (the journal version also grows regions from a tree of level sets).
    Background model: z is white noise, so z² exceeds the `quantile` of chi² with probability 1 - quantile. The test counts
    such candidates in a window around the position, averaged over the channels: a binomial tail.
    """
    half = max(window // 2, 1)
    trials = (2 * half + 1) ** 2
    candidates = (z.square() >= chi2.ppf(quantile, 1)).sum(1, keepdim=True).to(z.dtype)  # (B, 1, h, w)
    mode = "reflect" if half < min(z.shape[-2:]) else "replicate"
    padded = F.pad(candidates, (half,) * 4, mode=mode)
    sums = F.avg_pool2d(padded, 2 * half + 1, stride=1) * trials  # whole numbers up to trials x C
    counts = sums.round().long()[:, 0]  # (B, h, w)
    channels = z.shape[1]
    observed = (counts + channels - 1).div(channels, rounding_mode="floor")  # the mean over the channels, rounded up
    tails = binom.logsf([k - 1 for k in range(trials + 1)], trials, 1 - quantile) / math.log(10)  # log10 P(B >= k)
    return torch.tensor(tails, dtype=z.dtype, device=z.device)[observed]


class UFlow(AnomalyModel):
    """Likelihood under a flow that joins the scales of a backbone, coarse to fine."""

    def __init__(
        self,
        backbone: Annotated[str, Field(description='frozen feature network; "mcait" is two CaiTs')] = "wide_resnet50_2",
        layers: Annotated[
            tuple[str, ...], Field(min_length=1, description="its feature maps, each half as large as the one before")
        ] = ("layer1", "layer2", "layer3"),
        weights: Annotated[str, Field(description='"pretrained", "random" or a file')] = "pretrained",
        flow_steps: Annotated[int, Field(ge=1, description="coupling blocks of each stage")] = 4,
        affine_clamp: Annotated[float, Field(gt=0, description="bound of a coupling's log scale")] = 2.0,
        hidden_ratio: Annotated[float, Field(gt=0, description="hidden channels of a subnet to its inputs")] = 1.0,
        log_det_weight: Annotated[
            float | None, Field(gt=0, description="of log |det| in the loss; 1: the likelihood; none: as anomalib")
        ] = None,
        anomaly_map: Annotated[
            Literal["likelihood", "nfa"],
            Field(description="nfa: -log10 of the number of false alarms, which needs no threshold but 0"),
        ] = "likelihood",
    ) -> None:
        super().__init__()
        self.map_kind, self.log_det_weight = anomaly_map, log_det_weight
        mcait = backbone == "mcait"
        self.features = MultiScaleCait(layers, weights) if mcait else create_features(backbone, layers, weights)
        channels, strides = self.features.channels, self.features.strides
        if any(coarse != 2 * fine for fine, coarse in pairwise(strides)):
            raise ConfigError(
                f"U-Flow needs maps that halve from layer to layer; {', '.join(layers)} have strides {strides}"
            )
        # a transformer's tokens have already passed its own norm
        transformer = isinstance(self.features, TransformerFeatures | MultiScaleCait)
        self.norms = nn.ModuleList(nn.Identity() if transformer else MapNorm(c) for c in channels)
        self.flow = build_flow(channels, flow_steps, affine_clamp, hidden_ratio)

    def encode(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Latent maps z_i (B, C_i, h_i, w_i), finest first, and log |det dz/dx| (B,) of all of them."""
        side = max(self.features.strides)
        if images.shape[-2] % side or images.shape[-1] % side:
            raise ConfigError(f"U-Flow needs image sides that are multiples of {side}, got {tuple(images.shape[-2:])}")
        maps = [norm(x) for norm, x in zip(self.norms, self.features(images), strict=True)]
        latents, log_det = self.flow(maps)
        latents = [latents] if isinstance(latents, Tensor) else list(latents)
        return latents[::-1], log_det

    def training_step(self, batch: Batch, step: int) -> Iterator[Update]:
        """Minimise -log p_X(x) = sum over the scales of z² / 2, - log |det dz/dx| (without its constant).

        anomalib adds up the energies z² / 2 of a batch and averages its log-determinants; so does None for `log_det_weight`.
        """
        latents, log_det = self.encode(batch.images)
        energy = sum(0.5 * z.square().sum((1, 2, 3)) for z in latents)  # (B,)
        if self.log_det_weight is None:
            yield Update(energy.sum() - log_det.mean())
        else:
            yield Update((energy - self.log_det_weight * log_det).mean())

    def forward(self, images: Tensor) -> Prediction:
        """The map that was chosen by `anomaly_map`; the score is its maximum."""
        latents, _ = self.encode(images)
        size = images.shape[-2:]
        if self.map_kind == "nfa":
            anomaly_map = -self.log_nfa(latents, size)
        else:  # 1 - likelihood exp(-mean_c z² / 2) of each position, averaged over the scales
            likelihoods = [upsample(torch.exp(-0.5 * z.square().mean(1)), size) for z in latents]
            anomaly_map = 1 - torch.stack(likelihoods).mean(0)  # (B, H, W)
        return Prediction(highest(anomaly_map, self.roi_mask), anomaly_map)

    def log_nfa(self, latents: list[Tensor], size: tuple[int, int] | torch.Size) -> Tensor:
        """log10 of the number of false alarms at each pixel: tests x product of the scales' tail probabilities.

        The scales are independent under the background model: their logarithms add up. `latents` finest first; (B, H, W).
        """
        tests = sum(z.shape[-2] * z.shape[-1] for z in latents)
        tails = [upsample(log_tail(z, WINDOW // 2**scale), size) for scale, z in enumerate(latents)]
        return math.log10(tests) + torch.stack(tails).sum(0)

    @torch.no_grad()
    def segment(self, images: Tensor, log_nfa: float = 0.0) -> Tensor:
        """The paper's unsupervised segmentation, (B, H, W) bool: at most 10^log_nfa false alarms expected in an image."""
        latents, _ = self.encode(images)
        return self.log_nfa(latents, images.shape[-2:]) < log_nfa

    def configure_optimizers(self, plan: Plan) -> dict[str, Optimization]:
        """Adam on norms and flow; the rate falls linearly to 0.4 of itself over 25,000 steps."""
        parameters = [p for p in self.parameters() if p.requires_grad]
        schedule = {"type": "linear", "start_factor": 1.0, "end_factor": 0.4, "total_iters": 25_000}
        options = {"learning_rate": 1e-3, "weight_decay": 1e-5, "fused": True}
        return {"main": plan.optimization(parameters, "adam", scheduler=schedule, **options)}
