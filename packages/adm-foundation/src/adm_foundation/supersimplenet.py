"""SuperSimpleNet: two small heads on pretrained features learn to see noise that was added to those features.

Rolih et al., SuperSimpleNet: Unifying Unsupervised and Supervised Learning for Fast and Reliable Surface Defect Detection,
ICPR 2024. Where labelled anomalies are at hand, the same heads learn from them too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
import torch.nn.functional as F
from adcore.backbones.features import FeatureExtractor
from adcore.data.textures import perlin_noise
from adcore.maps import gaussian_blur, upsample
from adcore.model import AnomalyModel, Batch, Optimization, Prediction, Update
from adcore.training.plan import Plan
from pydantic import Field
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

FOCUS = 4.0  # gamma of the focal losses


class LocalFeatures(nn.Module):
    """Frozen features of several layers at twice the resolution of the first one, averaged over 3 x 3 neighbours."""

    def __init__(self, backbone: str, layers: tuple[str, ...], weights: str) -> None:
        super().__init__()
        self.extractor = FeatureExtractor(backbone, layers, weights)
        self.channels = sum(self.extractor.channels)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, h, w)."""
        maps = [m.contiguous(memory_format=torch.channels_last) for m in self.extractor(images)]  # pools 4 times faster
        size = [2 * side for side in maps[0].shape[-2:]]
        joined = torch.cat([F.interpolate(m, size, mode="bilinear") for m in maps], dim=1)
        return F.avg_pool2d(joined, kernel_size=3, stride=1, padding=1).contiguous()


class SegmentationHead(nn.Sequential):
    """Each location by itself: (B, C, h, w) -> (B, 1, h, w) logits."""

    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.Conv2d(channels, 1024, kernel_size=1),
            nn.BatchNorm2d(1024),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(1024, 1, kernel_size=1, bias=False),
        )


class ClassificationHead(nn.Module):
    """The whole image, from features and their segmentation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(channels + 1, 128, kernel_size=5, padding=2), nn.BatchNorm2d(128), nn.ReLU(inplace=True)
        )
        self.fc = nn.Linear(2 * 128 + 2, 1)

    def forward(self, features: Tensor, maps: Tensor) -> Tensor:
        """Features (B, C, h, w) and maps (B, 1, h, w) -> logits (B,)."""
        seen = self.conv(torch.cat([features, maps], dim=1))  # (B, 128, h, w)
        pooled = [statistic for m in (seen, maps) for statistic in (m.amax((2, 3)), m.mean((2, 3)))]
        return self.fc(torch.cat(pooled, dim=1))[:, 0]


def truncated_l1(logits: Tensor, targets: Tensor, known: Tensor, batch: Batch, margin: float = 0.5) -> Tensor:
    """Mean excess of normal logits over -margin, plus mean lack of anomalous ones below +margin; a class may be absent.

    Logits and targets are those of the images of `batch`; only where they are `known` (bool) they count.
    """
    anomalous = targets > 0
    normal = batch.mean((logits + margin).clamp(min=0), known & ~anomalous)
    return normal + batch.mean((margin - logits).clamp(min=0), known & anomalous)


def focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The focal loss of each logit, without class weights (Lin et al. 2017)."""
    return sigmoid_focal_loss(logits, targets, alpha=-1, gamma=FOCUS)


class SuperSimpleNet(AnomalyModel):
    """Frozen features, a linear adaptor, a segmentation and a classification head; scores and maps are logits."""

    divisible = True

    def __init__(
        self,
        backbone: Annotated[str, Field(description="pretrained convolutional network")] = "wide_resnet50_2",
        layers: Annotated[tuple[str, ...], Field(min_length=1, description="feature layers, finest first")] = (
            "layer2",
            "layer3",
        ),
        weights: Annotated[str, Field(description='"pretrained", "random" or a file')] = "pretrained",
        supervised: Annotated[bool, Field(description="learn from labelled anomalies and their masks too")] = False,
        perlin_threshold: Annotated[float, Field(ge=0, lt=1, description="Perlin noise above it becomes anomalous")] = (
            0.2
        ),
        noise_std: Annotated[float, Field(gt=0, description="deviation of the noise added to the features")] = 0.015,
        noise_chance: Annotated[float, Field(ge=0, le=1, description="share of the copies that get noise")] = 0.5,
        adapt_classification: Annotated[bool, Field(description="adapted features for the classification too")] = False,
        stop_gradient: Annotated[
            bool, Field(description="the classification's error does not reach the segmentation")
        ] = True,
    ) -> None:
        super().__init__()
        self.supervised, self.adapt_classification, self.stop_gradient = supervised, adapt_classification, stop_gradient
        self.perlin_threshold, self.noise_std, self.noise_chance = perlin_threshold, noise_std, noise_chance
        self.features = LocalFeatures(backbone, layers, weights)
        channels = self.features.channels
        self.adaptor = nn.Conv2d(channels, channels, kernel_size=1)
        self.segmentation = SegmentationHead(channels)
        self.classification = ClassificationHead(channels)
        for layer in (self.adaptor, *self.segmentation, *self.classification.modules()):
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.xavier_normal_(layer.weight)

    def forward(self, images: Tensor) -> Prediction:
        """Score preprocessed images (B, 3, H, W)."""
        features = self.features(images)
        adapted = self.adaptor(features)
        maps = self.segmentation(adapted)
        scores = self.classification(adapted if self.adapt_classification else features, maps)
        full = upsample(maps[:, 0], images.shape[-2:])
        return Prediction(scores, gaussian_blur(full, sigma=4.0, kernel_size=25))

    def training_step(self, batch: Batch, step: int) -> Iterator[Update]:
        """Two copies of each image's features get noise of their own; both heads learn where it is."""
        features = self.features(batch.images)
        masks, labels, known = self.targets(batch, features)
        adapted = self.adaptor(features).repeat(2, 1, 1, 1)
        features, masks, labels, known = (t.repeat(2, *[1] * (t.dim() - 1)) for t in (features, masks, labels, known))

        shape = features.shape[1:]
        noise, support = batch.drawn(lambda count: self.noise((2 * count, *shape), features.device), copies=2)
        support = support * (1 - masks)  # what is anomalous already stays as it is
        masks = torch.maximum(masks, support)
        labels = torch.maximum(labels, masks.amax((1, 2, 3)))
        noise = noise * support
        maps = self.segmentation(adapted + noise)
        shown = maps.detach() if self.stop_gradient else maps
        scores = self.classification((adapted if self.adapt_classification else features) + noise, shown)

        loss = focal_loss(scores, labels).mean()
        known = known[:, None, None, None]
        yield Update(loss + batch.mean(focal_loss(maps, masks), known) + truncated_l1(maps, masks, known, batch))

    def targets(self, batch: Batch, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Masks (B, 1, h, w), labels (B,), and whether the mask is known: an anomaly may come without one."""
        labels = (batch.labels if self.supervised else torch.zeros_like(batch.labels)).to(features.dtype)
        masks = F.interpolate(batch.masks[:, None].to(features.dtype), features.shape[-2:], mode="bilinear") >= 0.5
        return masks * labels[:, None, None, None], labels, batch.has_mask | (labels == 0)

    def noise(self, shape: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
        """Gaussian noise of `shape` (B, C, h, w), and where it goes (B, 1, h, w): a Perlin mask, or nowhere."""
        support = (perlin_noise(shape[0], tuple(shape[-2:])) > self.perlin_threshold)[:, None]
        chosen = torch.rand(shape[0], 1, 1, 1) < self.noise_chance
        return self.noise_std * torch.randn(shape, device=device), (support & chosen).float().to(device)

    def configure_optimizers(self, plan: Plan) -> dict[str, Optimization]:
        """AdamW; the adaptor at half the heads' rate; both times 0.4 after 80 and 90 % of the epochs.

        With supervision gradients are clipped to norm 1.
        """
        rate = plan.learning_rate or 2e-4
        adaptor = {"params": list(self.adaptor.parameters()), "lr": rate / 2}
        if plan.weight_decay is None:
            adaptor["weight_decay"] = 1e-2
        heads = {"params": [*self.segmentation.parameters(), *self.classification.parameters()]}
        milestones = [max(1, int(plan.epochs * share)) for share in (0.8, 0.9)]
        schedule = {"type": "multisteplr", "milestones": milestones, "gamma": 0.4}
        return {
            "main": plan.optimization(
                [adaptor, heads],
                "adamw",
                learning_rate=2e-4,
                weight_decay=1e-5,
                fused=True,
                scheduler=schedule,
                clip_norm=1.0 if self.supervised else None,
            )
        }
