"""The files of a new model."""

PLUGIN = '''\
"""What @name@ registers: cards only, no torch, so that listing stays quick."""

from adcore.cards import ModelCard
from adcore.hookspecs import hookimpl


@hookimpl
def adcore_register_models() -> list[ModelCard]:
    """One card for each name that users can type."""
    return [
        ModelCard(
            name="@name@",
            target="@module@.model:@class@",
            family="reconstruction",
            title="@class@",
            paper="Unpublished; put authors, title and venue here",
            year=@year@,
            summary="A small autoencoder; what it cannot reconstruct is anomalous.",
            epochs=20,
            batch_size=8,
            image_size=128,
            normalization="none",  # the model wants values in [0, 1]
            licence="MIT",
        )
    ]
'''
MODEL = '''\
"""@class@: a small convolutional autoencoder, to be replaced by your model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from adcore.maps import gaussian_blur, highest, upsample
from adcore.model import AnomalyModel, Batch, Optimization, Prediction, Update
from adcore.training.plan import Plan
from pydantic import Field
from torch import Tensor, nn


class @class@(AnomalyModel):
    """Reconstructs normal images through a narrow middle; the error shows what is not normal."""

    def __init__(
        self,
        *,
        width: Annotated[int, Field(ge=1, description="channels of the first convolution")] = 16,
        latent: Annotated[int, Field(ge=1, description="channels in the middle")] = 8,
        sigma: Annotated[float, Field(gt=0, description="smoothing of the map, in pixels")] = 2.0,
    ) -> None:
        super().__init__()
        self.sigma = sigma
        self.encoder = nn.Sequential(
            nn.Conv2d(3, width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, latent, 4, stride=2, padding=1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(latent, 4 * width, 3, padding=1),
            nn.PixelShuffle(2),
            nn.ReLU(),
            nn.Conv2d(width, 12, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def error(self, images: Tensor) -> Tensor:
        """Squared error of the reconstruction at each pixel: (B, 3, H, W) -> (B, H', W')."""
        reconstruction = self.decoder(self.encoder(images))  # (B, 3, H', W'), multiples of 4
        height, width = reconstruction.shape[-2:]
        return (reconstruction - images[..., :height, :width]).square().mean(1)

    def training_step(self, batch: Batch, step: int) -> Iterator[Update]:
        """One optimizer step for each batch."""
        yield Update(self.error(batch.images).mean())

    def configure_optimizers(self, plan: Plan) -> dict[str, Optimization]:
        """Adam; the user's learning_rate, weight_decay and scheduler go before these."""
        return {"main": plan.optimization(self.parameters(), "adam", learning_rate=1e-3)}

    def forward(self, images: Tensor) -> Prediction:
        """(B, 3, H, W) -> raw scores (B,) and maps (B, H, W); higher is more anomalous."""
        smooth = gaussian_blur(self.error(images), self.sigma)
        anomaly_map = upsample(smooth, images.shape[-2:])
        return Prediction(highest(anomaly_map, self.roi_mask), anomaly_map)
'''
CONFORMANCE = """\
from adcore.testing import ModelConformance


class Test@class@(ModelConformance):
    model = "@name@"
"""
