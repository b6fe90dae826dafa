"""The two-level discrete autoencoder under DSR: VQ-VAE-2 (Razavi et al., NeurIPS 2019) with one codebook for each level."""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F
from adcore.training.device import at_least_single
from einops import rearrange
from torch import Tensor, nn

COMMITMENT = 0.25  # weight of the encoder's loss against the codebook's
RESTART = 100  # steps after which codes that nothing was mapped to move to where the features are


class Residual(nn.Module):
    """relu(x) + conv1x1(relu(conv3x3(relu(x))))."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, hidden, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x.relu()
        return x + self.conv2(self.conv1(x).relu())


def residual_stack(channels: int) -> nn.Sequential:
    """Two residual blocks and a ReLU."""
    return nn.Sequential(Residual(channels, 64), Residual(channels, 64), nn.ReLU())


def decoder(channels: int, width: int) -> nn.Sequential:
    """(B, channels, h, w) -> image (B, 3, 4h, 4w)."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        residual_stack(width),
        nn.ConvTranspose2d(width, 64, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(64, 3, 4, stride=2, padding=1),
    )


class Quantizer(nn.Module):
    """Replaces every feature by the nearest code."""

    def __init__(self, count: int, dim: int) -> None:
        super().__init__()
        self.codes = nn.Parameter(torch.randn(count, dim))
        self.register_buffer("used", torch.zeros(count, dtype=torch.bool))  # since the last restart

    def distances(self, features: Tensor) -> Tensor:
        """(..., D) -> squared distances (..., K) to all codes, up to a constant for each feature."""
        with torch.autocast(features.device.type, enabled=False):  # half precision cannot tell near codes apart
            return self.codes.square().sum(1) - 2 * at_least_single(features) @ self.codes.T

    def nearest(self, features: Tensor) -> Tensor:
        """(B, D, h, w) -> nearest codes, with a gradient to the codebook and none to `features`.

        One image at a time: 64 x 64 positions against 4,096 codes are 64 MB.
        """
        vectors = rearrange(features.detach(), "b d h w -> b (h w) d")
        whole = torch.compiler.is_compiling()  # an exported graph has no loop over its images
        index = (
            self.distances(vectors).argmin(-1) if whole else torch.stack([self.distances(x).argmin(1) for x in vectors])
        )
        if self.training:
            self.used[index] = True
        return rearrange(F.embedding(index, self.codes), "b (h w) d -> b d h w", h=features.shape[-2])

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w) -> codes of the same shape; the gradient passes straight through to `features`."""
        return features + (self.nearest(features) - features).detach()

    def learn(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """As `forward`, with the loss that moves codes to their features, and features to their codes."""
        nearest = self.nearest(features)
        loss = F.mse_loss(nearest, features.detach()) + COMMITMENT * F.mse_loss(features, nearest.detach())
        return features + (nearest - features).detach(), loss

    @torch.no_grad()
    def restart(self, features: Tensor) -> None:
        """Move the codes that were not used since the last call onto random features of (B, D, h, w)."""
        flat = rearrange(features, "b d h w -> (b h w) d")
        idle = (~self.used).nonzero()[:, 0]
        self.codes[idle] = flat[torch.randint(len(flat), (len(idle),)).to(flat.device)].to(self.codes.dtype)
        self.used.zero_()


class TwoLevelVQ(nn.Module):
    """Codes at a quarter (hi) and an eighth (lo) of the resolution, and the general decoder D_gen from both."""

    def __init__(self, count: int, dim: int, width: int = 128) -> None:
        super().__init__()
        self.encoder_hi = nn.Sequential(
            nn.Conv2d(3, 64, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            residual_stack(width),
        )
        self.encoder_lo = nn.Sequential(
            nn.Conv2d(width, width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            residual_stack(width),
        )
        self.to_lo = nn.Conv2d(width, dim, 1)
        self.to_hi = nn.Conv2d(width + dim, dim, 1)
        self.codes_lo = Quantizer(count, dim)
        self.codes_hi = Quantizer(count, dim)
        self.upsample = nn.ConvTranspose2d(dim, dim, 4, stride=2, padding=1)
        self.decoder = decoder(2 * dim, width)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) -> features of the hi level before the lo level joins (B, w, H/4, W/4), F_lo (B, D, H/8, W/8)."""
        features = self.encoder_hi(images)
        return features, self.to_lo(self.encoder_lo(features))

    def join(self, features: Tensor, q_lo: Tensor) -> Tensor:
        """F_hi (B, D, H/4, W/4) from the hi level's features and the lo level's codes."""
        return self.to_hi(torch.cat([features, self.upsample(q_lo)], dim=1))

    def stack(self, q_hi: Tensor, q_lo: Tensor) -> Tensor:
        """Both levels at the hi level's size (B, 2D, H/4, W/4), as decoders read them."""
        return torch.cat([self.upsample(q_lo), q_hi], dim=1)

    def quantize(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) -> Q_hi (B, D, H/4, W/4), Q_lo (B, D, H/8, W/8)."""
        features, f_lo = self.encode(images)
        q_lo = self.codes_lo(f_lo)
        return self.codes_hi(self.join(features, q_lo)), q_lo

    def losses(self, images: Tensor, step: int) -> dict[str, Tensor]:
        """Terms of the loss that trains this stage; codes start on features of the first images."""
        features, f_lo = self.encode(images)
        if step % RESTART == 0:
            self.codes_lo.restart(f_lo)
        q_lo, loss_lo = self.codes_lo.learn(f_lo)
        f_hi = self.join(features, q_lo)
        if step % RESTART == 0:
            self.codes_hi.restart(f_hi)
        q_hi, loss_hi = self.codes_hi.learn(f_hi)
        reconstruction = self.decoder(self.stack(q_hi, q_lo))
        return {"reconstruction": F.mse_loss(reconstruction, images), "codes": loss_lo + loss_hi}


AUTHORS_NAMES = (  # patterns of our names, and what DSR's authors call them
    (r"^encoder_hi\.0\.", "_encoder_b._conv_1."),
    (r"^encoder_hi\.2\.", "_encoder_b._conv_2."),
    (r"^encoder_hi\.4\.", "_encoder_b._conv_3."),
    (r"^encoder_hi\.5\.", "_encoder_b._residual_stack._layers."),
    (r"^encoder_lo\.0\.", "_encoder_t._conv_1."),
    (r"^encoder_lo\.2\.", "_encoder_t._conv_2."),
    (r"^encoder_lo\.4\.", "_encoder_t._residual_stack._layers."),
    (r"^to_lo\.", "_pre_vq_conv_top."),
    (r"^to_hi\.", "_pre_vq_conv_bot."),
    (r"^codes_lo\.codes$", "_vq_vae_top._embedding.weight"),
    (r"^codes_hi\.codes$", "_vq_vae_bot._embedding.weight"),
    (r"^upsample\.", "upsample_t."),
    (r"^decoder\.0\.", "_decoder_b._conv_1."),
    (r"^decoder\.1\.", "_decoder_b._residual_stack._layers."),
    (r"^decoder\.2\.", "_decoder_b._conv_trans_1."),
    (r"^decoder\.4\.", "_decoder_b._conv_trans_2."),
    (r"\.conv1\.", "._block.1."),
    (r"\.conv2\.", "._block.3."),
)


def authors_name(name: str) -> str:
    """The name of a tensor of `TwoLevelVQ` in the file that DSR's authors publish."""
    for pattern, theirs in AUTHORS_NAMES:
        name = re.sub(pattern, theirs, name)
    return name


def checkpoint_filter_fn(state: dict[str, Tensor], vq: TwoLevelVQ) -> dict[str, Tensor]:
    """A file of `TwoLevelVQ`, under its own names or those of DSR's authors, as the state of `vq`."""
    used = {name: value for name, value in vq.state_dict().items() if name.endswith(".used")}  # of training only
    return used | {name: state[key] for name in vq.state_dict() for key in (name, authors_name(name)) if key in state}
