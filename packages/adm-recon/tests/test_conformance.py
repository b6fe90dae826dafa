"""Every card of the package against the contract, at a small size."""

from typing import ClassVar

from adcore.testing import ModelConformance

WIDTHS = {"reconstructive_width": 4, "discriminative_width": 4}


class TestAutoencoder(ModelConformance):
    model = "autoencoder"
    overrides: ClassVar = {"width": 8}


class TestAutoencoderOfFiveChannels(ModelConformance):
    model = "autoencoder"
    overrides: ClassVar = {"width": 8, "channels": 5}


class TestDRAEM(ModelConformance):
    model = "draem"
    overrides = WIDTHS


class TestDRAEMWithSSPCAB(ModelConformance):
    model = "draem-sspcab"
    overrides = WIDTHS


class TestDRAEMSevNet(ModelConformance):
    model = "draem-sevnet"
    overrides = WIDTHS


class TestDRAEMSevNetSpatial(ModelConformance):
    model = "draem-sevnet"
    overrides: ClassVar = {**WIDTHS, "severity_head": "spatial_aware"}


class TestDRAEMSevNetMultiscale(ModelConformance):
    model = "draem-sevnet-multiscale"
    overrides = WIDTHS


class TestGANomaly(ModelConformance):
    model = "ganomaly"
    overrides: ClassVar = {"levels": 3, "n_features": 8, "latent": 32}  # three levels bring 64 pixels down to 4


class TestGANomalyOfGray(ModelConformance):
    model = "ganomaly"
    overrides: ClassVar = {**TestGANomaly.overrides, "channels": 1}


class TestDSR(ModelConformance):
    model = "dsr"
    overrides: ClassVar = {"embedding_dim": 16, "num_embeddings": 64}
