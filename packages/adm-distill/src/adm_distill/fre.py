"""FRE: feature reconstruction error of a shallow linear tied autoencoder (Ndiour et al., BMVC 2023)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from adcore.backbones.features import create_features
from adcore.maps import upsample, within
from adcore.model import AnomalyModel, Batch, Fit, Optimization, Prediction, Update
from adcore.training.plan import Plan
from pydantic import Field
from torch import Tensor, nn


class TiedAutoencoder(nn.Module):
    """A linear map to few numbers, and back by its transpose: trained, it spans the principal subspace of its input.

    The input's length D depends on the image size, so it is given by `allocate`, or by the state that is loaded.
    """

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.latent = latent
        self.encoder_bias = nn.Parameter(torch.zeros(latent))
        self.weight = nn.Parameter(torch.empty(latent, 0))
        self.decoder_bias = nn.Parameter(torch.empty(0))

    def allocate(self, length: int) -> None:
        """Orthonormal rows, so that the first reconstruction is a projection."""
        device = self.encoder_bias.device
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(self.latent, length)).to(device))  # W: (d, D)
        self.decoder_bias = nn.Parameter(torch.zeros(length, device=device))

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) -> (B, D)."""
        code = F.linear(features, self.weight, self.encoder_bias)  # (B, latent)
        return F.linear(code, self.weight.t(), self.decoder_bias)

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *arguments: Any) -> None:
        for name in ("weight", "decoder_bias"):
            stored = state.get(prefix + name)
            if stored is not None and stored.shape != getattr(self, name).shape:
                setattr(self, name, nn.Parameter(stored.new_empty(stored.shape)))
        super()._load_from_state_dict(state, prefix, *arguments)


class FRE(AnomalyModel):
    """A tied autoencoder learns to repeat one layer's features of normal images; what it cannot repeat is anomalous."""

    def __init__(
        self,
        backbone: Annotated[str, Field(description="pretrained convolutional network")] = "resnet50",
        layer: Annotated[str, Field(description="its layer")] = "layer3",
        weights: Annotated[str, Field(description="pretrained, random, or a weights file")] = "pretrained",
        pooling: Annotated[int, Field(ge=1, description="side of the squares whose features are averaged")] = 2,
        latent: Annotated[
            int, Field(ge=1, description="numbers that the features of an image are squeezed into")
        ] = 220,
    ) -> None:
        super().__init__()
        self.pooling = pooling
        self.extractor = create_features(backbone, [layer], weights)
        self.autoencoder = TiedAutoencoder(latent)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, h, w)."""
        return F.avg_pool2d(self.extractor(images)[0], self.pooling)

    def on_fit_start(self, fit: Fit) -> None:
        """The size of the images decides that of the autoencoder."""
        first = next(iter(fit.train_batches()))
        self.autoencoder.allocate(self.features(first.images[:1]).numel())

    def training_step(self, batch: Batch, step: int) -> Iterator[Update]:
        """The mean squared reconstruction error."""
        features = self.features(batch.images).flatten(1)  # (B, D)
        yield Update(F.mse_loss(self.autoencoder(features), features))

    def configure_optimizers(self, plan: Plan) -> dict[str, Optimization]:
        """Adam over the autoencoder; the backbone is frozen."""
        return {"main": plan.optimization(self.autoencoder.parameters(), "adam", learning_rate=1e-3, fused=True)}

    def forward(self, images: Tensor) -> Prediction:
        """The squared error summed over the channels is the map, summed over all features the score."""
        features = self.features(images)
        reconstruction = self.autoencoder(features.flatten(1)).view_as(features)
        errors = (features - reconstruction).square().sum(1)  # (B, h, w)
        return Prediction(within(errors, self.roi_mask, fill=0).flatten(1).sum(1), upsample(errors, images.shape[-2:]))
