"""CS-Flow: a normalising flow over three scales of one image, whose couplings exchange information between the scales.

Rudolph et al., "Fully Convolutional Cross-Scale-Flows for Image-based Defect Detection", WACV 2022.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from adcore.backbones.build import create_backbone
from adcore.backbones.fused import Frozen
from adcore.errors import ConfigError
from adcore.maps import count_seen, upsample, within
from adcore.model import AnomalyModel, Batch, Optimization, Prediction, Update
from adcore.training.plan import Plan
from FrEIA.framework import GraphINN, InputNode, Node, OutputNode
from FrEIA.modules import InvertibleModule
from pydantic import Field
from torch import Tensor, nn

SCALES = 3
Flowed = tuple[list[Tensor], Tensor | float]  # maps, and log |det| of each sample


class StageFeatures(nn.Module):
    """The output of one stage of an EfficientNet for the image at full, half and quarter size."""

    def __init__(self, backbone: str, layer: str, weights: str = "pretrained") -> None:
        super().__init__()
        self.net = create_backbone(backbone, weights, frozen=True, num_classes=0)
        stages = len(self.net.blocks) if hasattr(self.net, "conv_stem") else 0
        if not stages:
            raise ConfigError(f"CS-Flow reads the stages of an EfficientNet, which backbone '{backbone}' is not")
        match = re.fullmatch(r"blocks\.(\d+)", layer)
        if not match or int(match[1]) >= stages:
            raise ConfigError(f"backbone '{backbone}' has no layer '{layer}'; layers: blocks.0 to blocks.{stages - 1}")
        self.net.blocks = self.net.blocks[: int(match[1]) + 1]
        del self.net.conv_head, self.net.bn2  # they come after the stages
        self.quick = Frozen(nn.Sequential(self.net.conv_stem, self.net.bn1, self.net.blocks))
        _, self.channels, height, _ = self(torch.zeros(1, 3, 64, 64))[0].shape
        self.stride = 64 // height

    def train(self, mode: bool = True) -> StageFeatures:
        """Frozen: it stays in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> three maps (B, C, H / stride / 2^i, W / stride / 2^i)."""
        scaled = [images, *(F.interpolate(images, scale_factor=0.5**i, mode="nearest") for i in range(1, SCALES))]
        return [self.quick(x) for x in scaled]


class CrossConvolutions(nn.Module):
    """The subnet of a coupling: two convolutions at each scale, the second also reads the neighbouring scales."""

    def __init__(self, channels_in: int, hidden: int, channels_out: int, kernel_size: int) -> None:
        super().__init__()

        def convolution(into: int, out: int, stride: int = 1) -> nn.Conv2d:
            return nn.Conv2d(into, out, kernel_size, stride, padding=kernel_size // 2)

        self.first = nn.ModuleList(convolution(channels_in, hidden) for _ in range(SCALES))
        self.second = nn.ModuleList(convolution(hidden, channels_out) for _ in range(SCALES))
        self.down = nn.ModuleList(convolution(hidden, channels_out, stride=2) for _ in range(SCALES - 1))
        self.up = nn.ModuleList(convolution(hidden, channels_out) for _ in range(SCALES - 1))
        self.gamma = nn.ParameterList(torch.zeros(1) for _ in range(SCALES))  # the couplings begin as the identity

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Three maps, each half as large as the one before, (B, channels_in, h, w) -> (B, channels_out, h, w)."""
        hidden = [F.leaky_relu(conv(x), 0.1) for conv, x in zip(self.first, maps, strict=True)]
        out = [conv(h) for conv, h in zip(self.second, hidden, strict=True)]
        for i in range(SCALES - 1):
            larger = F.interpolate(hidden[i + 1], scale_factor=2, mode="bilinear", align_corners=False)
            out[i] = out[i] + self.up[i](larger)
            out[i + 1] = out[i + 1] + self.down[i](hidden[i])
        return [gamma * y for gamma, y in zip(self.gamma, out, strict=True)]


class CrossScaleCoupling(InvertibleModule):
    """Affine coupling of both halves of the channels, each conditioned on the other half at all scales."""

    def __init__(self, dims_in: Sequence[tuple[int, ...]], hidden: int, kernel_size: int, clamp: float) -> None:
        super().__init__(dims_in)
        channels = dims_in[0][0]
        self.clamp, self.split = clamp, [channels // 2, channels - channels // 2]
        a, b = self.split
        self.of_first = CrossConvolutions(a, hidden, 2 * b, kernel_size)
        self.of_second = CrossConvolutions(b, hidden, 2 * a, kernel_size)

    def scale_and_shift(self, subnet: CrossConvolutions, maps: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """(log scale, shift) for each map; the log scale is clamped softly to about +-clamp."""
        pairs = (a.chunk(2, 1) for a in subnet(maps))
        return [(self.clamp * 0.636 * torch.atan(s / self.clamp), t) for s, t in pairs]

    def forward(self, x: Sequence[Tensor], c: object = None, rev: bool = False, jac: bool = True) -> Flowed:
        """Maps to maps of the same shapes, and log |det| (B,)."""
        first, second = zip(*(m.split(self.split, 1) for m in x), strict=True)
        if not rev:
            a = self.scale_and_shift(self.of_second, second)
            first = [u * s.exp() + t for u, (s, t) in zip(first, a, strict=True)]
            b = self.scale_and_shift(self.of_first, first)
            second = [v * s.exp() + t for v, (s, t) in zip(second, b, strict=True)]
        else:
            b = self.scale_and_shift(self.of_first, first)
            second = [(v - t) * (-s).exp() for v, (s, t) in zip(second, b, strict=True)]
            a = self.scale_and_shift(self.of_second, second)
            first = [(u - t) * (-s).exp() for u, (s, t) in zip(first, a, strict=True)]
        log_det = sum(s.sum((1, 2, 3)) for s, _ in [*a, *b])
        return [torch.cat(pair, 1) for pair in zip(first, second, strict=True)], -log_det if rev else log_det

    def output_dims(self, input_dims: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """The same shapes."""
        return input_dims


class CrossScalePermutation(InvertibleModule):
    """A fixed random permutation of the channels of each scale."""

    def __init__(self, dims_in: Sequence[tuple[int, ...]]) -> None:
        super().__init__(dims_in)
        self.register_buffer("permutation", torch.stack([torch.randperm(c) for c, *_ in dims_in]))  # (scales, C)

    def forward(self, x: Sequence[Tensor], c: object = None, rev: bool = False, jac: bool = True) -> Flowed:
        """Maps to maps of the same shapes; the volume does not change."""
        order = self.permutation.argsort(1) if rev else self.permutation
        return [m.index_select(1, p) for m, p in zip(x, order, strict=True)], 0.0

    def output_dims(self, input_dims: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """The same shapes."""
        return input_dims


def build_flow(channels: int, blocks: int, hidden: int, clamp: float) -> GraphINN:
    """Maps of three scales to latent maps of the same shapes; 3 x 3 convolutions, 5 x 5 in the last block."""
    inputs = [InputNode(channels, 2**i, 2**i, name=f"scale{i}") for i in reversed(range(SCALES))]
    nodes: list[Node] = []
    flowing = [node.out0 for node in inputs]
    for block in range(blocks):
        options = {"hidden": hidden, "kernel_size": 5 if block == blocks - 1 else 3, "clamp": clamp}
        for kind, arguments in ((CrossScalePermutation, {}), (CrossScaleCoupling, options)):
            nodes.append(Node(flowing, kind, arguments, name=f"{kind.__name__}{block}"))
            flowing = [nodes[-1].out0, nodes[-1].out1, nodes[-1].out2]
    outputs = [OutputNode(out, name=f"z{i}") for i, out in enumerate(flowing)]
    return GraphINN([*inputs, *nodes, *outputs])


class CSFlow(AnomalyModel):
    """Likelihood of the features of an image at three sizes under one flow; the score is the mean of z²."""

    def __init__(
        self,
        backbone: Annotated[str, Field(description="frozen EfficientNet")] = "efficientnet_b5",
        layer: Annotated[str, Field(description="its stage that gives the features")] = "blocks.5",
        weights: Annotated[str, Field(description='"pretrained", "random" or a file')] = "pretrained",
        coupling_blocks: Annotated[int, Field(ge=1, description="coupling blocks")] = 4,
        cross_conv_channels: Annotated[int, Field(ge=1, description="hidden channels of the subnets")] = 1024,
        clamp: Annotated[float, Field(gt=0, description="bound of a coupling's log scale")] = 3.0,
        log_det_weight: Annotated[
            float | None, Field(gt=0, description="of log |det| in the loss; 1: the likelihood; none: as anomalib")
        ] = None,
    ) -> None:
        super().__init__()
        self.log_det_weight = log_det_weight
        self.features = StageFeatures(backbone, layer, weights)
        self.flow = build_flow(self.features.channels, coupling_blocks, cross_conv_channels, clamp)

    def encode(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Latent maps (B, C, h_i, w_i), finest first, and log |det dz/dx| (B,)."""
        side = self.features.stride * 2 ** (SCALES - 1)
        if images.shape[-2] % side or images.shape[-1] % side:
            raise ConfigError(f"CS-Flow needs image sides that are multiples of {side}, got {tuple(images.shape[-2:])}")
        latents, log_det = self.flow(self.features(images))
        return list(latents), log_det

    def training_step(self, batch: Batch, step: int) -> Iterator[Update]:
        """Minimise -log p_X(x) = z² / 2 - log |det dz/dx| (without its constant), a dimension of x.

        anomalib averages the energies z² / 2 of a batch and adds up its log-determinants; so does None for `log_det_weight`.
        """
        latents, log_det = self.encode(batch.images)
        z = torch.cat([m.flatten(1) for m in latents], 1)  # (B, D)
        energy = 0.5 * z.square().sum(1)
        if self.log_det_weight is None:
            yield Update((energy.mean() - log_det.sum()) / z.shape[1])
        else:
            yield Update((energy - self.log_det_weight * log_det).mean() / z.shape[1])

    def forward(self, images: Tensor) -> Prediction:
        """Score: mean of z² / 2 over all scales. Map: mean of z² over the channels, multiplied over the scales."""
        latents, _ = self.encode(images)
        if self.roi_mask is None:
            score = 0.5 * torch.cat([m.flatten(1) for m in latents], 1).square().mean(1)
        else:
            energies = [within(m.square().sum(1), self.roi_mask, fill=0).flatten(1).sum(1) for m in latents]
            score = 0.5 * sum(energies) / sum(m.shape[1] * count_seen(self.roi_mask, m.shape[-2:]) for m in latents)
        maps = [upsample(m.square().mean(1), images.shape[-2:]) for m in latents]
        return Prediction(score, torch.stack(maps).prod(0))

    def configure_optimizers(self, plan: Plan) -> dict[str, Optimization]:
        """Adam on the flow, with the gradient's norm clipped to 1."""
        options = {"learning_rate": 2e-4, "eps": 1e-4, "weight_decay": 1e-5, "betas": (0.5, 0.9), "fused": True}
        return {"main": plan.optimization(self.flow.parameters(), "adam", clip_norm=1.0, **options)}
