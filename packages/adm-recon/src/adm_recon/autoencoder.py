"""A convolutional autoencoder judged by SSIM or by squared error (Bergmann et al., VISAPP 2019)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from adcore.maps import gaussian_blur, highest
from adcore.model import AnomalyModel, Batch, Optimization, Prediction, Update
from adcore.training.plan import Plan
from pydantic import Field
from torch import Tensor, nn

from adm_recon.blocks import check_positions, check_size, up_conv
from adm_recon.losses import ssim_map

STRIDE = 32


def down_conv(channels: int, out: int) -> nn.Sequential:
    """(B, channels, H, W) -> (B, out, H/2, W/2)."""
    return nn.Sequential(
        nn.Conv2d(channels, out, 4, stride=2, padding=1), nn.BatchNorm2d(out), nn.LeakyReLU(0.2, inplace=True)
    )


class Autoencoder(AnomalyModel):
    """Reconstructs normal images through a narrow latent; what it cannot reconstruct is anomalous.

    Images (B, C, H, W) in [0, 1], sides multiples of 32. After Bergmann et al., VISAPP 2019, but fully convolutional: one
    latent vector for every 32 x 32 pixels, so that any image size will do. The score is the map's maximum.
    """

    def __init__(
        self,
        *,
        latent: Annotated[int, Field(ge=1, description="channels of the latent")] = 128,
        width: Annotated[int, Field(ge=1, description="channels of the first convolution")] = 32,
        loss: Annotated[
            Literal["ssim", "mse"], Field(description="what is minimised, and what the map shows of a new image")
        ] = "ssim",
        channels: Annotated[int, Field(ge=1, le=1024, description="of the images")] = 3,
        sigma: Annotated[float, Field(gt=0, description="of the map's smoothing, in pixels")] = 4.0,
    ) -> None:
        super().__init__()
        w, self.loss, self.sigma = width, loss, sigma
        self.encoder = nn.Sequential(
            down_conv(channels, w),
            down_conv(w, 2 * w),
            down_conv(2 * w, 4 * w),
            down_conv(4 * w, 4 * w),
            down_conv(4 * w, 8 * w),
            nn.Conv2d(8 * w, latent, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(latent, 8 * w, 1),
            up_conv(8 * w, 4 * w),
            up_conv(4 * w, 4 * w),
            up_conv(4 * w, 2 * w),
            up_conv(2 * w, w),
            up_conv(w, w),
            nn.Conv2d(w, channels, 3, padding=1),
            nn.Sigmoid(),
        )

    def residual(self, images: Tensor) -> Tensor:
        """What the reconstruction misses at each pixel: (B, C, H, W) -> (B, H, W), zero where it is perfect."""
        check_size(images, STRIDE, "autoencoder")
        reconstruction = self.decoder(self.encoder(images))
        missed = 1 - ssim_map(reconstruction, images) if self.loss == "ssim" else (reconstruction - images).square()
        return missed.mean(1)

    def check_run(self, images: int, size: tuple[int, int]) -> None:
        check_positions(size, STRIDE, "autoencoder")

    def training_step(self, batch: Batch, step: int) -> Iterator[Update]:
        yield Update(self.residual(batch.images).mean())

    def configure_optimizers(self, plan: Plan) -> dict[str, Optimization]:
        return {"main": plan.optimization(self.parameters(), "adam", learning_rate=1e-3, weight_decay=1e-5, fused=True)}

    def forward(self, images: Tensor) -> Prediction:
        anomaly_map = gaussian_blur(self.residual(images), self.sigma)
        return Prediction(highest(anomaly_map, self.roi_mask), anomaly_map)
