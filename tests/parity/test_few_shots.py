"""AnomalyDINO, RAD and SuperADD against anomalib's answers: six training images, DINOv2 small.

AnomalyDINO's authors upscale distances bilinearly, and so do we; the peer repeats them. The comparison does as the peer.
"""

import torch
import torch.nn.functional as F
from adcore.training.plan import Plan
from adcore.training.trainer import Trainer
from adm_memory import anomaly_dino
from adm_memory.anomaly_dino import AnomalyDINO
from adm_memory.rad import RAD
from adm_memory.superadd import SuperADD

RENAMES = [(r"^extractor\.net\.", "encoder.")]
KEPT = r"^(memory_bank|descriptors|bank_.|banks\..*|black)$"


def fitted(model, stored):
    stored.fill_module(model, RENAMES, keep=KEPT)
    return learned(model, stored)


def learned(model, stored):
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


def test_superadd(golden):
    """The peer's tokens do not pass the network's last norm, and it divides distances by C where we divide by its root."""
    stored = golden("superadd")
    options = stored.facts["options"]
    layers = tuple(f"block{i}" for i in options["layers"])
    crops = {"crop": options["patch_size"], "overlap": options["patch_overlap"]}
    all_patches = {"brightness": (1.0,), "coreset_ratio": 1.0}
    model = SuperADD("dinov2reg_vit_small_14", layers, "random", **crops, **all_patches)
    stored.fill_module(model, RENAMES, keep=KEPT)
    model.extractor.net.norm = torch.nn.Identity()
    prediction = learned(model, stored)
    stored.assert_map_close(prediction.anomaly_map / 384**0.5)
    stored.assert_relative(prediction.score / 384**0.5, "score")
