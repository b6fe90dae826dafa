"""DSR: a dual subspace re-projection network for surface anomaly detection (Zavrtanik et al., ECCV 2022)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
import torch.nn.functional as F
from adcore.backbones.build import load_weights
from adcore.backbones.resolve import WeightsFile, resolve
from adcore.errors import WeightsError
from adcore.maps import highest
from adcore.model import AnomalyModel, Batch, Fit, Optimization, Prediction, Update
from adcore.training.plan import Plan
from pydantic import Field
from torch import Tensor, nn

from adm_recon.blocks import check_positions, check_size, double_conv, up_conv
from adm_recon.losses import focal_loss
from adm_recon.synthetic import Blend, perlin_masks, texture_anomalies
from adm_recon.vqvae import Quantizer, TwoLevelVQ, residual_stack

RECONSTRUCTION_WEIGHT = 10.0  # of the object-specific reconstruction in the second stage's loss
SPARED = 0.05  # the nearest share of the codebook never serves as an anomaly: it looks the same
SCORE_WINDOW = 21  # side of the mean filter before the score's maximum


def block(channels: int, hidden: int, out: int) -> nn.Sequential:
    return double_conv(channels, hidden, out, nn.InstanceNorm2d)


def up(channels: int, out: int) -> nn.Sequential:
    return up_conv(channels, out, nn.InstanceNorm2d)


def restriction(dim: int) -> nn.Sequential:
    """Subspace restriction: (B, D, h, w) -> (B, D, h, w), an encoder and decoder without skips."""
    return nn.Sequential(
        block(dim, dim, dim),
        nn.MaxPool2d(2),
        block(dim, 2 * dim, 2 * dim),
        nn.MaxPool2d(2),
        block(2 * dim, 4 * dim, 4 * dim),
        up(4 * dim, 2 * dim),
        block(2 * dim, 2 * dim, 2 * dim),
        up(2 * dim, dim),
        block(dim, dim, dim),
        nn.Conv2d(dim, dim, 3, padding=1),
    )


def object_decoder(dim: int) -> nn.Sequential:
    """Object-specific decoder D_spec: both levels' codes (B, 2D, h, w) -> image (B, 3, 4h, 4w)."""
    return nn.Sequential(
        block(2 * dim, 2 * dim, 4 * dim),
        nn.MaxPool2d(2),
        block(4 * dim, 4 * dim, 8 * dim),
        nn.MaxPool2d(2),
        nn.Conv2d(8 * dim, 64, 1),
        nn.ConvTranspose2d(64, 64, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(64, 64, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(64, dim, 3, padding=1),
        residual_stack(dim),
        nn.ConvTranspose2d(dim, 64, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(64, 3, 4, stride=2, padding=1),
    )


class UNet(nn.Module):
    """(B, channels, H, W) -> logits (B, 2, H, W) of normal and anomalous."""

    def __init__(self, channels: int, w: int = 64) -> None:
        super().__init__()
        widths = (w, 2 * w, 4 * w, 4 * w)
        self.encoder = nn.ModuleList(block(i, o, o) for i, o in zip((channels, *widths), widths, strict=False))
        self.pool = nn.MaxPool2d(2)
        stages = [(4 * w, 4 * w, 4 * w), (4 * w, 2 * w, 2 * w), (2 * w, w, w)]  # from, to, width of the skip
        self.up = nn.ModuleList(up(before, after) for before, after, _ in stages)
        self.merge = nn.ModuleList(block(after + skip, after, after) for _, after, skip in stages)
        self.out = nn.Conv2d(w, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        skips = [self.encoder[0](x)]
        for stage in self.encoder[1:]:
            skips.append(stage(self.pool(skips[-1])))
        x = skips[-1]
        for rise, merge, skip in zip(self.up, self.merge, skips[-2::-1], strict=True):
            x = merge(torch.cat([rise(x), skip], dim=1))
        return self.out(x)


class BatchTextures:
    """Textures for smudges: the images of the batch itself, turned over."""

    def __init__(self, images: Tensor) -> None:
        self.images = images.cpu()

    def sample(self, count: int, size: tuple[int, int], generator: torch.Generator | None = None) -> Tensor:
        """(count, 3, H, W): random images of the batch, upside down."""
        return self.images[torch.randint(len(self.images), (count,), generator=generator)].flip(2)


def disturb(quantizer: Quantizer, features: Tensor, codes: Tensor, mask: Tensor, strength: Tensor) -> Tensor:
    """Put anomalous codes into Q (B, D, h, w) where mask (B, h, w) is True.

    Each comes at random from the nearest share `strength` (B,) of the codebook to its feature F (B, D, h, w), the very
    nearest ones spared (Zavrtanik et al. 2022, section 3.3): the larger the strength, the less alike.
    """
    count = len(quantizer.codes)
    order = quantizer.distances(features.movedim(1, -1)[mask]).argsort(1)  # (N, K) nearest first
    low = int(SPARED * count)
    high = (strength.to(mask.device)[:, None, None].expand(mask.shape)[mask] * count).clamp(min=low + 1)  # (N,)
    rank = low + (torch.rand(len(order)).to(mask.device) * (high - low)).long()
    disturbed = codes.movedim(1, -1).clone()
    disturbed[mask] = quantizer.codes[order.gather(1, rank[:, None])[:, 0]]
    return disturbed.movedim(-1, 1)


class DSR(AnomalyModel):
    """Finds what a codebook of normal features cannot restore; images (B, 3, H, W) in [0, 1], sides multiples of 32.

    Zavrtanik et al., ECCV 2022. Three stages, each with its own optimizer: the discrete autoencoder (skipped when its
    weights are given), restriction and detection on anomalies made in its latent space, and the upsampling module.
    """

    def __init__(
        self,
        *,
        vq_weights: Annotated[
            str | None,
            Field(
                description="weights of the discrete autoencoder: pretrained (those of the backbone dsr_autoencoder) or a "
                "file; when none are given it is trained first"
            ),
        ] = None,
        latent_anomaly_strength: Annotated[
            float, Field(ge=0, le=1, description="share of the codebook that anomalies come from at least")
        ] = 0.2,
        embedding_dim: Annotated[int, Field(ge=1, description="length of a code")] = 128,
        num_embeddings: Annotated[int, Field(ge=2, description="codes in each of the two codebooks")] = 4096,
        vq_ratio: Annotated[
            float, Field(gt=0, lt=1, description="share of the steps that train the discrete autoencoder")
        ] = 0.3,
        upsampling_ratio: Annotated[
            float, Field(gt=0, lt=1, description="share of the remaining steps that train the upsampling module")
        ] = 0.3,
        anomaly_probability: Annotated[float, Field(ge=0, le=1, description="share of damaged training images")] = 0.5,
    ) -> None:
        super().__init__()
        self.vq = TwoLevelVQ(num_embeddings, embedding_dim)
        self.restrict_hi, self.restrict_lo = restriction(embedding_dim), restriction(embedding_dim)
        self.object_decoder = object_decoder(embedding_dim)
        self.detector = UNet(6)
        self.upsampler = UNet(8)
        self.strength, self.blend = latent_anomaly_strength, Blend((0.2, 1.0), anomaly_probability)
        self.vq_ratio, self.upsampling_ratio = (0.0 if vq_weights else vq_ratio), upsampling_ratio
        self.vq_weights = vq_weights
        self.stage_ends = (0, 0)  # steps after which the first and the second stage are over

    def check_run(self, images: int, size: tuple[int, int]) -> None:
        check_positions(size, 32, "dsr")
        if self.vq_weights:
            self.find_vq()

    def find_vq(self) -> WeightsFile:
        """The weights that `vq_weights` asks for; WeightsError says what to get."""
        try:
            return resolve("dsr_autoencoder", None if self.vq_weights == "pretrained" else self.vq_weights)
        except WeightsError as error:
            raise WeightsError(f"{error}; or leave vq_weights out, and it is trained first") from None

    def on_fit_start(self, fit: Fit) -> None:
        if self.vq_weights:
            load_weights(self.vq, self.find_vq())
        total = fit.plan.total_steps
        first = max(1, round(self.vq_ratio * total)) if self.vq_ratio else 0
        self.stage_ends = first, max(first + 1, total - max(1, round(self.upsampling_ratio * (total - first))))

    def restore(self, q_hi: Tensor, q_lo: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Codes -> features F~_hi, F~_lo in the normal subspace, and the image I_spec decoded from their codes."""
        f_hi, f_lo = self.restrict_hi(q_hi), self.restrict_lo(q_lo)
        restored = self.object_decoder(self.vq.stack(self.vq.codes_hi(f_hi), self.vq.codes_lo(f_lo)))
        return f_hi, f_lo, restored

    def detect(self, q_hi: Tensor, q_lo: Tensor) -> tuple[Tensor, Tensor]:
        """Codes -> the two images beside each other (B, 6, H, W), logits (B, 2, H, W) of the detection module."""
        images = torch.cat([self.restore(q_hi, q_lo)[2], self.vq.decoder(self.vq.stack(q_hi, q_lo))], dim=1)
        return images, self.detector(images)

    @torch.no_grad()
    def latent_anomalies(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """(B, 3, H, W) -> clean Q_hi, Q_lo, disturbed Q_hi, Q_lo, and what was disturbed (B, H, W) bool.

        An anomaly is in one level or in both; a disturbed lo level also changes the hi level that is computed from it.
        """
        masks = self.anomaly_masks(images)  # (2, B, H, W): for hi and for lo
        strength = self.strength + (1 - self.strength) * torch.rand(len(images))
        features, f_lo = self.vq.encode(images)
        q_lo = self.vq.codes_lo(f_lo)
        q_hi = self.vq.codes_hi(self.vq.join(features, q_lo))
        at_hi, at_lo = (F.max_pool2d(m.float(), s).bool() for m, s in zip(masks, (4, 8), strict=True))
        bad_lo = disturb(self.vq.codes_lo, f_lo, q_lo, at_lo, strength)
        f_hi = self.vq.join(features, bad_lo)
        bad_hi = disturb(self.vq.codes_hi, f_hi, self.vq.codes_hi(f_hi), at_hi, strength)
        covered = (at.repeat_interleave(s, 1).repeat_interleave(s, 2) for at, s in ((at_hi, 4), (at_lo, 8)))
        return q_hi, q_lo, bad_hi, bad_lo, next(covered) | next(covered)

    def anomaly_masks(self, images: Tensor) -> Tensor:
        """Where codes are disturbed, (2, B, H, W) bool for the levels hi and lo."""
        count, _, height, width = images.shape
        defective = torch.rand(count) < self.blend.probability
        masks = perlin_masks(count, (height, width)) & defective[:, None, None]
        level = torch.randint(3, (count, 1, 1))  # hi, lo, both
        return torch.stack([masks & (level != 1), masks & (level != 0)]).to(images.device)

    def smudge(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) -> images with visible anomalies, and their masks (B, H, W) bool."""
        return texture_anomalies(images, BatchTextures(images), self.blend)

    def training_step(self, batch: Batch, step: int) -> Iterator[Update]:
        check_size(batch.images, 32, "dsr")
        self.vq.requires_grad_(step < self.stage_ends[0])
        if step < self.stage_ends[0]:
            yield self.vq_step(batch.images, step)
        elif step < self.stage_ends[1]:
            yield self.restriction_step(batch.images)
        else:
            yield self.upsampling_step(batch.images)

    def vq_step(self, images: Tensor, step: int) -> Update:
        terms = self.vq.losses(images, step)
        return Update(sum(terms.values()), "vq", {name: term.detach() for name, term in terms.items()})

    def restriction_step(self, images: Tensor) -> Update:
        q_hi, q_lo, bad_hi, bad_lo, mask = self.latent_anomalies(images)
        with torch.no_grad():
            general = self.vq.decoder(self.vq.stack(bad_hi, bad_lo))  # I_gen
        f_hi, f_lo, restored = self.restore(bad_hi, bad_lo)
        terms = {
            "hi": F.mse_loss(f_hi, q_hi),
            "lo": F.mse_loss(f_lo, q_lo),
            "image": RECONSTRUCTION_WEIGHT * F.mse_loss(restored, images),
            "focal": focal_loss(self.detector(torch.cat([restored, general], dim=1)), mask),
        }
        return Update(sum(terms.values()), logs={name: term.detach() for name, term in terms.items()})

    def upsampling_step(self, images: Tensor) -> Update:
        smudged, mask = self.smudge(images)
        with torch.no_grad():
            joined, logits = self.detect(*self.vq.quantize(smudged))
        return Update(focal_loss(self.upsampler(torch.cat([joined, logits.softmax(1)], dim=1)), mask), "upsampling")

    def configure_optimizers(self, plan: Plan) -> dict[str, Optimization]:
        parts = {
            "vq": [self.vq],
            "main": [self.restrict_hi, self.restrict_lo, self.object_decoder, self.detector],
            "upsampling": [self.upsampler],
        }
        parameters = {name: [p for net in nets for p in net.parameters()] for name, nets in parts.items()}
        return {name: plan.optimization(p, "adam", learning_rate=2e-4, fused=True) for name, p in parameters.items()}

    def forward(self, images: Tensor) -> Prediction:
        check_size(images, 32, "dsr")
        joined, logits = self.detect(*self.vq.quantize(images))
        coarse = logits.softmax(1)
        anomaly_map = self.upsampler(torch.cat([joined, coarse], dim=1)).softmax(1)[:, 1]
        smooth = F.avg_pool2d(coarse[:, 1], SCORE_WINDOW, 1, SCORE_WINDOW // 2)
        return Prediction(highest(smooth, self.roi_mask), anomaly_map)
