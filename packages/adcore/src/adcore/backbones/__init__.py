"""Backbones: which networks are known, where their weights are found offline, and how features are taken from them."""
