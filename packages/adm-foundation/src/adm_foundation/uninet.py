"""UniNet: a student restores what two teachers see, one fixed and one that adapts, each from the other one's features.

Wei et al., UniNet: A Contrastive Learning-guided Unified Framework with Feature Selection for Anomaly Detection, CVPR 2025.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
import torch.nn.functional as F
from adcore.backbones.features import FeatureExtractor
from adcore.backbones.mirror import Decoder, fuse, fusing_layers, mirror_of
from adcore.errors import ConfigError
from adcore.maps import gaussian_blur, highest, upsample
from adcore.model import AnomalyModel, Batch, Optimization, Prediction, Update
from adcore.training.plan import Plan
from pydantic import Field
from torch import Tensor, nn

EPSILON = 1e-8  # keeps the logarithm of a vanishing similarity finite


class Branch(nn.Sequential):
    """Two 3 x 3 convolutions, of which the first may halve the resolution."""

    def __init__(self, inputs: int, outputs: int, stride: int, bias: bool) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=bias),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=bias),
            nn.BatchNorm2d(outputs),
        )


class SplitBlock(nn.Module):
    """A residual block whose two branches see half of the channels each."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        width = outputs // 8
        self.first = Branch(inputs // 2, width, stride, bias=False)
        self.second = Branch(inputs - inputs // 2, width, stride, bias=True)
        self.join = nn.Sequential(nn.Conv2d(2 * width, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, outputs, h / stride, w / stride)."""
        half = x.shape[1] // 2
        branches = torch.cat([self.first(x[:, :half]), self.second(x[:, half:])], dim=1)
        return F.relu(self.join(branches) + self.shortcut(x))


class Bottleneck(nn.Module):
    """All layers of a teacher in one code of half the last layer's resolution."""

    def __init__(self, channels: list[int], fused: list[int], code: int, blocks: int) -> None:
        super().__init__()
        self.halvings = fusing_layers(channels, fused)
        total = fused[-1] * (len(channels) - 1) + channels[-1]
        self.blocks = nn.Sequential(SplitBlock(total, code, 2), *(SplitBlock(code, code, 1) for _ in range(blocks - 1)))

    def forward(self, maps: list[Tensor]) -> Tensor:
        """[(B, C_l, h_l, w_l)] -> (B, code, h / 2, w / 2) with h, w of the last layer."""
        return self.blocks(fuse(self.halvings, maps))


class FeatureSelection(nn.Module):
    """Domain-related feature selection: the teacher's own features say which locations the student must restore."""

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        self.thetas = nn.ParameterList(nn.Parameter(torch.zeros(1, c, 1, 1)) for c in channels)

    def forward(self, student: list[Tensor], teachers: list[Tensor]) -> list[Tensor]:
        """Features (B, C_l, h_l, w_l), layers of the first teacher before those of the second; the student's, weighted."""
        selected = []
        for i, (s, t) in enumerate(zip(student, teachers, strict=True)):
            theta = (torch.sigmoid(self.thetas[i % len(self.thetas)]) + 0.5).clamp(max=1)
            weights = t.flatten(2).softmax(-1).view_as(t)  # over locations
            selected.append(s * weights * (theta + t.mean((2, 3), keepdim=True)))
        return selected


def contrastive_loss(student: Tensor, teacher: Tensor, temperature: float, balance: float) -> Tensor:
    """Restore each location's feature (B, C, h, w), and make it more alike to its own location than to all others.

    balance * (1 - cosine) - (1 - balance) * log p + (1 - p), with p the softmax over all locations of the teacher.
    """
    s, t = (F.normalize(f.flatten(2), dim=1) for f in (student, teacher))  # (B, C, N)
    own = (s * t).sum(1)  # (B, N)
    p = (own / temperature - (s.mT @ (t / temperature)).logsumexp(-1)).exp()
    return (balance * (1 - own) - (1 - balance) * (p + EPSILON).log() + (1 - p)).mean()


class UniNet(AnomalyModel):
    """Learns from normal images; the score is the largest value of the smoothed map, which lies in [0, 12]."""

    def __init__(
        self,
        backbone: Annotated[str, Field(description="of both teachers; the student mirrors it")] = "wide_resnet50_2",
        layers: Annotated[
            tuple[str, ...], Field(min_length=3, max_length=3, description="three layers, each halving the resolution")
        ] = ("layer1", "layer2", "layer3"),
        weights: Annotated[str, Field(description='"pretrained", "random" or a file')] = "pretrained",
        temperature: Annotated[float, Field(gt=0, description="of the contrastive loss (T)")] = 0.4,
        balance: Annotated[float, Field(ge=0, le=1, description="cosine against contrastive loss (lambda)")] = 0.7,
    ) -> None:
        super().__init__()
        self.temperature, self.balance = temperature, balance
        self.source = FeatureExtractor(backbone, layers, weights)
        self.target = FeatureExtractor(backbone, layers, weights, frozen=False)
        channels, (mirror, widths) = self.source.channels, mirror_of(self.source)
        code = 2 * widths[-1]
        self.bottleneck = Bottleneck(channels, widths, code, mirror.embedding_blocks)
        self.student = Decoder(code, widths, channels, mirror)
        self.selection = FeatureSelection(channels)
        for module in (*self.bottleneck.modules(), *self.student.modules()):
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def check_run(self, images: int, size: tuple[int, int]) -> None:
        """ConfigError where the decoder would not give maps of the encoder's size."""
        multiple = 2 * self.source.strides[-1]
        if size[0] % multiple or size[1] % multiple:
            raise ConfigError(
                f"UniNet needs sides that are multiples of {multiple}, got {size[0]} x {size[1]}; set image_size"
            )

    def features(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """(B, 3, H, W) -> the teachers' layers, source before target, and what the student restores for each.

        The source teacher is met by what the student made of the target teacher's features, and the other way round.
        """
        with torch.no_grad():
            source = self.source(images)
        target = self.target(images)
        code = self.bottleneck([torch.cat(pair) for pair in zip(target, source, strict=True)])  # (2B, code, h, w)
        restored = [layer.unflatten(0, (2, -1)) for layer in self.student(code)]  # (2, B, C_l, h_l, w_l)
        return [*source, *target], [pair[i] for i in (0, 1) for pair in restored]

    def forward(self, images: Tensor) -> Prediction:
        """Score preprocessed images (B, 3, H, W): one minus the cosine at each location, summed over the layers."""
        pairs = zip(*self.features(images), strict=True)
        maps = [upsample(1 - F.cosine_similarity(t, s), images.shape[-2:], align_corners=True) for t, s in pairs]
        joined = torch.stack(maps).sum(0)
        smooth = gaussian_blur(joined, sigma=4.0, kernel_size=5)
        return Prediction(highest(smooth, self.roi_mask), joined)

    def training_step(self, batch: Batch, step: int) -> Iterator[Update]:
        """The contrastive loss of all layers of both teachers, on the student's selected features."""
        teachers, student = self.features(batch.images)
        pairs = zip(self.selection(student, teachers), teachers, strict=True)
        yield Update(sum(contrastive_loss(s, t, self.temperature, self.balance) for s, t in pairs))

    def configure_optimizers(self, plan: Plan) -> dict[str, Optimization]:
        """AdamW; the target teacher moves 5,000 times slower than the student; a fifth of the rate after 80 % of the epochs."""
        rate = plan.learning_rate or 5e-3
        groups = [
            {"params": [p for part in (self.student, self.bottleneck, self.selection) for p in part.parameters()]},
            {"params": list(self.target.parameters()), "lr": rate / 5000},
        ]
        schedule = {"type": "multisteplr", "milestones": [max(1, int(0.8 * plan.epochs))], "gamma": 0.2}
        return {
            "main": plan.optimization(
                groups,
                "adamw",
                learning_rate=5e-3,
                weight_decay=1e-5,
                eps=1e-10,
                amsgrad=True,
                fused=True,
                scheduler=schedule,
            )
        }
