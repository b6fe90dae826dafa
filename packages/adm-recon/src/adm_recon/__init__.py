"""Reconstruction models for adcore: Autoencoder, DRAEM, DRAEM-SevNet."""
