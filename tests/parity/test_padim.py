"""PaDiM against anomalib's answers."""

import torch
from adcore.training.plan import Plan
from adcore.training.trainer import Trainer
from adm_memory.padim import PaDiM

RENAMES = [(r"^extractor\.net\.", "backbone.")]


def test_fit_maps_and_scores(golden):
    stored = golden("padim")
    kept = stored.tensors["indices"].sort()  # which channels are drawn differs; their order changes nothing

    class WithTheirChannels(PaDiM):
        def on_fit_start(self, fit):
            super().on_fit_start(fit)
            self.channels = kept.values

    options = stored.facts["options"]
    model = WithTheirChannels(options["backbone"], tuple(options["layers"]), "random", options["n_features"])
    stored.fill_module(model, RENAMES, keep="^(channels|mean|whitening)$")
    batches = stored.batches()
    Trainer(model, Plan(), batches, num_images=40).run()
    torch.testing.assert_close(model.mean.t(), stored.tensors["mean"][kept.indices], rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        prediction = model(stored.input())
    stored.assert_map_close(prediction.anomaly_map)
    stored.assert_relative(prediction.score, "score")
