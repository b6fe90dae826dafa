"""EfficientAD: a tiny teacher, a student and an autoencoder (Batzner, Heckler, König, WACV 2024)."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from itertools import compress, pairwise
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from adcore.backbones.build import load_weights
from adcore.backbones.resolve import resolve
from adcore.data.samples import NORMAL
from adcore.errors import ConfigError
from adcore.maps import highest, upsample
from adcore.model import AnomalyModel, Batch, Fit, Optimization, Prediction, Update
from adcore.training.plan import Plan
from pydantic import Field
from torch import Tensor, nn
from torchvision.transforms.v2.functional import adjust_brightness, adjust_contrast, adjust_saturation

from adm_distill.efficientad_teacher import (
    ChannelMoments,
    Distillation,
    NaturalImages,
    find_teacher,
    normalized,
    teacher_images,
)
from adm_distill.pdn import TEACHER_CHANNELS, PatchDescriptionNetwork

log = logging.getLogger(__name__)
SMALLEST = 256  # pixels: the autoencoder's encoder ends in an 8 x 8 kernel at 1/32 of the resolution
HELD_OUT = 0.1  # share of the training images for the map quantiles when there are no validation images
LIKE_TEACHER = slice(0, TEACHER_CHANNELS)  # the student's first outputs learn the teacher's,
LIKE_AUTOENCODER = slice(TEACHER_CHANNELS, None)  # the others the autoencoder's
GROWTH = ((64, 1), (32, 0), (16, 1), (8, 0), (4, 1), (2, 1))  # at 256 px the decoder's sides are 3, 8, 15, 32, 63, 127
PENALTY_GRAY = 0.3  # share of penalty images shown without colours


def hard_mean(distance: Tensor, quantile: float) -> Tensor:
    """Mean of each image's largest elements, those from its `quantile` on: (B, ...) -> scalar, the paper's L_hard."""
    elements = distance.flatten(1)
    count = elements.shape[1] - math.ceil(quantile * (elements.shape[1] - 1))
    return elements.topk(count, dim=1, sorted=False).values.mean()


def jitter(images: Tensor) -> Tensor:
    """Each of (B, 3, H, W) in [0, 1] with its brightness, contrast or saturation changed by a factor of 0.8 to 1.2."""
    adjustments = (adjust_brightness, adjust_contrast, adjust_saturation)
    choices = torch.randint(3, (len(images),)).tolist()
    factors = torch.empty(len(images)).uniform_(0.8, 1.2).tolist()
    return torch.stack([adjustments[c](image, f) for image, c, f in zip(images, choices, factors, strict=True)])


def _counted(maps: Tensor, seen: list[np.ndarray] | None) -> Tensor:
    """The values of maps (B, H, W) at the pixels that count, (H, W) bool of each image: (N,)."""
    return maps.flatten() if seen is None else maps[torch.tensor(np.stack(seen), device=maps.device)]


class Autoencoder(nn.Module):
    """Squeezes the whole image into 64 numbers and tells from them what the teacher says of it (paper, table 8)."""

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__()
        widths = (3, 32, 32, 64, 64, 64)
        self.encoder = nn.ModuleList(nn.Conv2d(i, o, 4, 2, 1) for i, o in pairwise(widths))
        self.encoder.append(nn.Conv2d(64, 64, 8))
        self.decoder = nn.ModuleList(nn.Conv2d(64, 64, 4, padding=2) for _ in range(6))
        self.decoder.append(nn.Conv2d(64, 64, 3, padding=1))
        self.decoder.append(nn.Conv2d(64, TEACHER_CHANNELS, 3, padding=1))
        self.dropout = nn.Dropout(dropout)

    def forward(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        """ImageNet-normalised (B, 3, H, W) to the teacher's description (B, 384, *size)."""
        height, width = images.shape[-2:]
        hidden = images
        for convolution in self.encoder[:-1]:
            hidden = F.relu(convolution(hidden))
        hidden = self.encoder[-1](hidden)  # (B, 64, 1, 1) at 256 px
        for convolution, (part, less) in zip(self.decoder, GROWTH, strict=False):
            hidden = _resized(hidden, (height // part - less, width // part - less))
            hidden = self.dropout(F.relu(convolution(hidden)))
        return self.decoder[-1](F.relu(self.decoder[-2](_resized(hidden, size))))


def _resized(features: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(features, size, mode="bilinear", align_corners=False)


class EfficientAD(AnomalyModel):
    """The student misses local anomalies of the teacher's patches, the autoencoder anomalies of the whole (logical ones).

    Images come in [0, 1]; the model standardises them itself, since its augmentation works on colours.
    """

    def __init__(
        self,
        size: Annotated[Literal["small", "medium"], Field(description="patch description network")] = "small",
        teacher: Annotated[
            str,
            Field(
                description="teacher weights: pretrained (those of the backbone efficientad_teacher_<size>), a file or folder, "
                "distill (from teacher_backbone on teacher_images), or random (tests only)"
            ),
        ] = "pretrained",
        teacher_backbone: Annotated[str, Field(description="network to distil from")] = "wide_resnet50_2",
        teacher_images: Annotated[str | None, Field(description="folder of natural images to distil on")] = None,
        teacher_steps: Annotated[int, Field(ge=1, description="distillation steps of 16 images")] = 60_000,
        penalty_images: Annotated[
            str | None,
            Field(description="folder of natural images on which the student must stay silent; without it no penalty"),
        ] = None,
        hard_quantile: Annotated[
            float, Field(ge=0, lt=1, description="p_hard: only distances from this quantile on are learned")
        ] = 0.999,
    ) -> None:
        super().__init__()
        self.size, self.hard_quantile, self.penalty_images = size, hard_quantile, penalty_images
        self.teacher_source = (teacher, teacher_backbone, teacher_images, teacher_steps)
        self.teacher = PatchDescriptionNetwork(size).requires_grad_(False)
        self.student = PatchDescriptionNetwork(size, 2 * TEACHER_CHANNELS)
        self.autoencoder = Autoencoder()
        self.register_buffer("teacher_mean", torch.zeros(1, TEACHER_CHANNELS, 1, 1))  # mu, on training images
        self.register_buffer("teacher_std", torch.ones(1, TEACHER_CHANNELS, 1, 1))  # sigma
        for name in ("qa_st", "qb_st", "qa_ae", "qb_ae"):  # 0.9 and 0.995 quantiles of normal images' maps
            self.register_buffer(name, torch.tensor(float(name.startswith("qb"))))
        self._penalties: NaturalImages | None = None
        self._held_out: frozenset[str] = frozenset()  # paths
        self._trained_share = 1.0  # of the training images

    def check_run(self, images: int, size: tuple[int, int]) -> None:
        """ConfigError for small images, DataError for a missing folder, WeightsError where there is no teacher."""
        self._check_size(size)
        if self.penalty_images is not None:
            NaturalImages(self.penalty_images, "penalty_images")
        source, backbone, folder, _ = self.teacher_source
        if source == "distill":
            teacher_images(folder)
            resolve(backbone)
        elif source != "random":
            find_teacher(source, self.size)

    def on_fit_start(self, fit: Fit) -> None:
        """Get the teacher, measure its channels, and hold images out when there are none for validation."""
        self._check_size(next(iter(fit.train_batches())).images.shape[-2:])
        if self.penalty_images is None:
            log.warning(
                "no penalty_images: training without the penalty that keeps the student from learning the teacher's "
                "ways beyond the normal images; set penalty_images=FOLDER of natural images (ImageNet, Imagenette, ...)"
            )
        else:
            self._penalties = NaturalImages(self.penalty_images, "penalty_images")
        self._load_teacher(fit)
        chosen = self._held_out_indices(fit)
        moments, seen, held_out = ChannelMoments(), 0, set()
        for batch in fit.train_batches():
            held_out |= {path for i, path in enumerate(batch.paths, seen) if i in chosen}
            seen += len(batch.paths)
            fit.progress("measuring the teacher", seen, fit.num_images)
            with torch.no_grad():
                moments.add(self.teacher(normalized(batch.images)))
        self._held_out = frozenset(held_out)
        self._trained_share = 1 - len(held_out) / seen
        self.teacher_mean.copy_(moments.mean)
        self.teacher_std.copy_(moments.std)

    def _load_teacher(self, fit: Fit) -> None:
        source, backbone, images, steps = self.teacher_source
        if source == "random":
            log.warning("teacher=random: the scores will mean nothing")
            return
        if source == "distill":
            distillation = Distillation(backbone, images, self.size, steps, fit.plan.seed)
            self.teacher.load_state_dict(distillation.state(fit.device, fit.progress))
        else:
            load_weights(self.teacher, find_teacher(source, self.size))

    def _held_out_indices(self, fit: Fit) -> set[int]:
        """Which training images to leave out of training, by position; none where validation has normal images."""
        if fit.val_batches and any((batch.labels == NORMAL).any() for batch in fit.val_batches()):
            return set()
        count = max(1, round(HELD_OUT * fit.num_images))
        if count >= fit.num_images:
            log.warning("no validation images, and only one to train on: its own map sets the maps' scale")
            return set()
        log.warning("no normal validation images: %d training images are held out to set the maps' scale", count)
        generator = torch.Generator().manual_seed(fit.plan.seed)
        return set(torch.randperm(fit.num_images, generator=generator)[:count].tolist())

    def training_step(self, batch: Batch, step: int) -> Iterator[Update]:
        """Algorithm 1: student to teacher, autoencoder to teacher, student to autoencoder, with equal weights."""
        seen, images = [path not in self._held_out for path in batch.paths], batch.images
        if not any(seen):
            return
        if not all(seen):
            images = images[seen]
        plain, altered = normalized(images), normalized(jitter(images))
        with torch.no_grad():
            target, altered_target = self.describe(torch.cat([plain, altered])).chunk(2)  # Y^T
        reconstruction = self.autoencoder(altered, target.shape[-2:])  # Y^A
        penalties = self._penalty_batch(images)
        hidden = self.student.body(torch.cat([altered, plain, *penalties]))
        like_autoencoder = self.student.head(hidden[: len(images)], LIKE_AUTOENCODER)  # Y^STAE
        like_teacher = self.student.head(hidden[len(images) :], LIKE_TEACHER)  # Y^ST, and that of the penalty images
        student = hard_mean((target - like_teacher[: len(images)]).square(), self.hard_quantile)
        if penalties:
            student = student + like_teacher[len(images) :].square().mean()
        autoencoder = F.mse_loss(reconstruction, altered_target)
        agreement = F.mse_loss(like_autoencoder, reconstruction)
        logs = {"student": student.detach(), "autoencoder": autoencoder.detach(), "agreement": agreement.detach()}
        yield Update(student + autoencoder + agreement, logs=logs)

    def _penalty_batch(self, images: Tensor) -> list[Tensor]:
        """As many penalty images as `images`: the middle of each at twice the resolution; nothing without a folder."""
        if self._penalties is None:
            return []
        height, width = images.shape[-2:]
        drawn = torch.stack([self._penalties.draw((2 * height, 2 * width), PENALTY_GRAY) for _ in images])
        middle = drawn[..., height // 2 : height // 2 + height, width // 2 : width // 2 + width]
        return [normalized(middle.to(images.device))]

    def configure_optimizers(self, plan: Plan) -> dict[str, Optimization]:
        """Adam; the rate falls to a tenth for the last 5 % of the steps."""
        parameters = [*self.student.parameters(), *self.autoencoder.parameters()]
        steps = plan.optimizer_steps
        if plan.batch_size == 1:
            steps *= self._trained_share  # a held-out image is no step
        drop = {"type": "steplr", "step_size": max(1, int(0.95 * steps)), "gamma": 0.1, "interval": "step"}
        options = {"learning_rate": 1e-4, "weight_decay": 1e-5, "scheduler": drop, "fused": True}
        return {"main": plan.optimization(parameters, "adam", **options)}

    def on_validation_start(self, fit: Fit) -> None:
        """The maps' scale, as of now."""
        self._measure_maps(fit)

    def on_fit_end(self, fit: Fit) -> None:
        """The maps' scale."""
        self._measure_maps(fit)

    @torch.no_grad()
    def _measure_maps(self, fit: Fit) -> None:
        """Store the quantiles of both maps over normal images that were not trained on."""
        training = self.training
        self.eval()
        maps = [[_counted(one, seen) for one in self.maps(images)] for images, seen in self._unseen(fit)]
        self.train(training)
        for name, values in zip(("st", "ae"), zip(*maps, strict=True), strict=True):
            flat = torch.cat(values).cpu().numpy()  # torch.quantile stops at 2**24 values
            for buffer, q in ((f"qa_{name}", 0.9), (f"qb_{name}", 0.995)):
                getattr(self, buffer).fill_(float(np.quantile(flat, q)))

    def _unseen(self, fit: Fit) -> Iterator[tuple[Tensor, list[np.ndarray] | None]]:
        """Normal validation images, else the held-out training images, in batches, with the pixels that count (Batch.seen)."""
        trained = bool(self._held_out) or not fit.val_batches
        for batch in fit.train_batches() if trained else fit.val_batches():
            if trained:
                chosen = [path in self._held_out or not self._held_out for path in batch.paths]
            else:
                chosen = (batch.labels == NORMAL).tolist()
            if any(chosen):
                yield batch.images[chosen], None if batch.seen is None else list(compress(batch.seen, chosen))

    def describe(self, images: Tensor) -> Tensor:
        """The teacher's description of normalised images, standardised channel by channel: (B, 384, h, w)."""
        return (self.teacher(images) - self.teacher_mean) / self.teacher_std

    def maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Raw student-teacher and student-autoencoder maps, (B, H, W) each."""
        self._check_size(images.shape[-2:])
        inputs = normalized(images)
        teacher, student = self.describe(inputs), self.student(inputs)
        reconstruction = self.autoencoder(inputs, teacher.shape[-2:])
        local = (teacher - student[:, LIKE_TEACHER]).square().mean(1)  # M_ST: (B, h, w)
        overall = (reconstruction - student[:, LIKE_AUTOENCODER]).square().mean(1)  # M_AE
        # without padding the outermost patches' centres lie 4 positions inside
        local, overall = (upsample(F.pad(m, (4, 4, 4, 4)), images.shape[-2:]) for m in (local, overall))
        return local, overall

    def forward(self, images: Tensor) -> Prediction:
        """The mean of both maps, each scaled so that its quantiles qa and qb become 0 and 0.1; the score is its maximum."""
        local, overall = self.maps(images)
        local = 0.1 * (local - self.qa_st) / (self.qb_st - self.qa_st)
        overall = 0.1 * (overall - self.qa_ae) / (self.qb_ae - self.qa_ae)
        anomaly_map = 0.5 * (local + overall)
        return Prediction(highest(anomaly_map, self.roi_mask), anomaly_map)

    @staticmethod
    def _check_size(size: tuple[int, int]) -> None:
        if min(size) < SMALLEST:
            given = "x".join(map(str, size))
            raise ConfigError(f"EfficientAD needs images of at least {SMALLEST} px a side, got {given}; set image_size")
