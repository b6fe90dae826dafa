"""GANomaly: an encoder-decoder-encoder generator against a discriminator (Akcay et al., ACCV 2018)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
import torch.nn.functional as F
from adcore.errors import ConfigError
from adcore.model import AnomalyModel, Batch, Optimization, Prediction, Update
from adcore.training.plan import Plan
from pydantic import Field
from torch import Tensor, nn

from adm_recon.blocks import init_dcgan


def down(channels: int, out: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, out, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(out),
        nn.LeakyReLU(0.2, inplace=True),
    ]


def up(channels: int, out: int) -> list[nn.Module]:
    return [
        nn.ConvTranspose2d(channels, out, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(inplace=True),
    ]


def pyramid(channels: int, features: int, levels: int) -> nn.Sequential:
    """(B, C, H, W) -> (B, features * 2^levels, H / 2^(levels + 1), W / 2^(levels + 1))."""
    layers = [nn.Conv2d(channels, features, 4, stride=2, padding=4, bias=False), nn.LeakyReLU(0.2, inplace=True)]
    for level in range(levels):
        layers += down(features * 2**level, features * 2 ** (level + 1))
    return nn.Sequential(*layers)


class Generator(nn.Module):
    """G_E, G_D and E of the paper: image -> latent z -> reconstruction -> latent z_hat."""

    def __init__(self, channels: int, features: int, latent: int, levels: int) -> None:
        super().__init__()
        deepest = features * 2**levels

        def encoder() -> nn.Sequential:
            return nn.Sequential(pyramid(channels, features, levels), nn.Conv2d(deepest, latent, 4, bias=False))

        self.encoder = encoder()  # G_E
        layers = [nn.ConvTranspose2d(latent, deepest, 4, bias=False), nn.BatchNorm2d(deepest), nn.ReLU(inplace=True)]
        for level in reversed(range(levels)):
            layers += up(features * 2 ** (level + 1), features * 2**level)
        layers += [nn.ConvTranspose2d(features, channels, 4, stride=2, padding=1, bias=False), nn.Tanh()]
        self.decoder = nn.Sequential(*layers)  # G_D
        self.second_encoder = encoder()  # E

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, C, H, W) in [-1, 1] -> x_hat of the same shape, z and z_hat (B, latent, h, w)."""
        z = self.encoder(x)
        x_hat = self.decoder(z)
        return x_hat, z, self.second_encoder(x_hat)


class Discriminator(nn.Module):
    """D of the paper: features f(x), and the probability that x is real."""

    def __init__(self, channels: int, features: int, levels: int) -> None:
        super().__init__()
        self.features = pyramid(channels, features, levels)
        self.classifier = nn.Conv2d(features * 2**levels, 1, 4, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(x)
        return features, self.classifier(features).flatten()


class GANomaly(AnomalyModel):
    """Scores an image by how far the latent of its reconstruction is from its own; images (B, C, H, W) in [0, 1].

    Akcay et al., ACCV 2018. Height and width are multiples of 2^(levels + 1), at least four times that. No anomaly map.
    """

    def __init__(
        self,
        *,
        n_features: Annotated[int, Field(ge=1, description="channels of the first convolution")] = 64,
        latent: Annotated[int, Field(ge=1, description="length of the latent vector")] = 256,
        levels: Annotated[
            int, Field(ge=1, description="halvings after the first one: 5 bring 256 pixels down to 4, 3 bring 64")
        ] = 5,
        channels: Annotated[int, Field(ge=1, le=1024, description="of the images")] = 3,
        adversarial_weight: Annotated[float, Field(ge=0, description="of feature matching, w_adv")] = 1.0,
        contextual_weight: Annotated[float, Field(ge=0, description="of the reconstruction, w_con")] = 50.0,
        encoder_weight: Annotated[float, Field(ge=0, description="of the latents' distance, w_enc")] = 1.0,
    ) -> None:
        super().__init__()
        self.levels = levels
        self.generator = Generator(channels, n_features, latent, levels)
        self.discriminator = Discriminator(channels, n_features, levels)
        self.apply(init_dcgan)
        self.weights = adversarial_weight, contextual_weight, encoder_weight

    def check_run(self, images: int, size: tuple[int, int]) -> None:
        """ConfigError where the size does not fit."""
        height, width = size
        step = 2 ** (self.levels + 1)
        if height % step or width % step or min(height, width) < 4 * step:
            fits = max(1, (min(height, width) // 4).bit_length() - 2)
            raise ConfigError(
                f"ganomaly with levels={self.levels} needs sides that are multiples of {step} and at least {4 * step}, "
                f"got {height} x {width}; try levels={fits} and sides that are multiples of {2 ** (fits + 1)}"
            )

    def scaled(self, images: Tensor) -> Tensor:
        """[0, 1] -> [-1, 1], what the decoder's tanh can reach."""
        self.check_run(images.shape[0], images.shape[-2:])
        return 2 * images - 1

    def training_step(self, batch: Batch, step: int) -> Iterator[Update]:
        x = self.scaled(batch.images)
        x_hat, z, z_hat = self.generator(x)
        real_features, real = self.discriminator(x)
        self.discriminator.requires_grad_(False)  # the generator's step needs no gradients of its weights
        fake_features, _ = self.discriminator(x_hat)
        self.discriminator.requires_grad_(True)
        adversarial = F.mse_loss(fake_features, real_features.detach())  # L_adv
        contextual = F.l1_loss(x_hat, x)  # L_con
        encoder = F.smooth_l1_loss(z_hat, z)  # L_enc
        w_adv, w_con, w_enc = self.weights
        logs = {"adversarial": adversarial.detach(), "contextual": contextual.detach(), "encoder": encoder.detach()}
        yield Update(w_adv * adversarial + w_con * contextual + w_enc * encoder, logs=logs)

        _, fake = self.discriminator(x_hat.detach())
        loss = F.binary_cross_entropy_with_logits(real, torch.ones_like(real))
        loss = (loss + F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))) / 2
        yield Update(loss, "discriminator")

    def configure_optimizers(self, plan: Plan) -> dict[str, Optimization]:
        networks = {"main": self.generator, "discriminator": self.discriminator}
        options = {"learning_rate": 2e-4, "betas": (0.5, 0.999), "fused": True}
        return {name: plan.optimization(net.parameters(), "adam", **options) for name, net in networks.items()}

    def forward(self, images: Tensor) -> Prediction:
        _, z, z_hat = self.generator(self.scaled(images))
        return Prediction((z - z_hat).square().mean((1, 2, 3)))
