"""AnomalyDINO and RAD against anomalib's answers: six training images, DINOv2 small.

AnomalyDINO's authors upscale distances bilinearly, and so do we; the peer repeats them. The comparison does as the peer.
"""

import torch
import torch.nn.functional as F
from adcore.training.plan import Plan
from adcore.training.trainer import Trainer
from adm_memory import anomaly_dino
from adm_memory.anomaly_dino import AnomalyDINO
from adm_memory.rad import RAD

RENAMES = [(r"^extractor\.net\.", "encoder.")]


def fitted(model, stored):
    stored.fill_module(model, RENAMES, keep="^(memory_bank|descriptors|bank_.)$")
    Trainer(model, Plan(), stored.batches(), num_images=6).run()
    with torch.no_grad():
        return model(stored.input())


def test_anomaly_dino(golden, monkeypatch):
    monkeypatch.setattr(anomaly_dino, "upsample", lambda maps, size: F.interpolate(maps[:, None], size)[:, 0])
    stored = golden("anomaly_dino")
    prediction = fitted(AnomalyDINO("dinov2_vit_small_14", weights="random", views=1), stored)
    stored.assert_map_close(prediction.anomaly_map)
    stored.assert_relative(prediction.score, "score")


def test_rad(golden):
    stored = golden("rad")
    options = stored.facts["options"]
    layers = tuple(f"block{i}" for i in options["layers"])
    model = RAD("dinov2_vit_small_14", layers, "random", similar_images=options["k_image"])
    prediction = fitted(model, stored)
    stored.assert_map_close(prediction.anomaly_map)
    stored.assert_relative(prediction.score, "score")
