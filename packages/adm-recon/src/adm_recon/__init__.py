"""Reconstruction models for adcore: Autoencoder, GANomaly, DRAEM, DRAEM-SevNet, DSR."""
