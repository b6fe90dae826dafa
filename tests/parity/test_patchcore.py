"""PatchCore against anomalib's answers: the same bank (every patch), so that only distances and weights are compared.

The paper upscales the patch scores bilinearly, and so do we; the peer repeats them (nearest), which leaves the steps of the
grid in the map. The comparison therefore upscales ours as the peer does.
"""

import torch
import torch.nn.functional as F
from adcore.training.plan import Plan
from adcore.training.trainer import Trainer
from adm_memory import patchcore
from adm_memory.patchcore import PatchCore

RENAMES = [(r"^extractor\.net\.", "backbone.")]


def test_embedding_maps_and_scores(golden, monkeypatch):
    monkeypatch.setattr(patchcore, "upsample", lambda maps, size: F.interpolate(maps[:, None], size)[:, 0])
    stored = golden("patchcore")
    options = stored.facts["options"]
    model = PatchCore(options["backbone"], tuple(options["layers"]), "random", coreset_ratio=1.0)
    stored.fill_module(model, RENAMES, keep="^memory_bank$")
    Trainer(model, Plan(), stored.batches(), num_images=6).run()
    stored.assert_map_close(model.embed(stored.train_batches()[0][:1])[0], "embedding_of_first")
    with torch.no_grad():
        prediction = model(stored.input())
    stored.assert_map_close(prediction.anomaly_map)
    stored.assert_relative(prediction.score, "score")
