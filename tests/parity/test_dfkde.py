"""DFKDE against anomalib's answers."""

import torch
from adcore.training.plan import Plan
from adcore.training.trainer import Trainer
from adm_memory.dfkde import DFKDE

RENAMES = [(r"^extractor\.net\.", "backbone.")]
STEEPNESS, OFFSET = 0.05, 12.0  # the peer's score is the sigmoid of -STEEPNESS (log-density - OFFSET)


def test_fit_and_scores(golden):
    stored = golden("dfkde")
    options = stored.facts["options"]
    model = DFKDE(options["backbone"], options["layers"][0], "random")
    stored.fill_module(model, RENAMES, keep="^(mean|directions|points|whitening)$")
    batches = stored.batches()
    Trainer(model, Plan(), batches, num_images=24).run()
    torch.testing.assert_close(model.mean, stored.tensors["mean"], rtol=1e-4, atol=1e-5)
    kernels = torch.cdist(stored.tensors["points"], stored.tensors["points"])  # theirs are whitened
    whitened = (model.points @ model.whitening.t()).float()
    torch.testing.assert_close(torch.cdist(whitened, whitened), kernels, rtol=1e-4, atol=1e-3)
    with torch.no_grad():
        prediction = model(stored.input())
    probability = torch.sigmoid(STEEPNESS * (prediction.score + OFFSET))
    stored.assert_relative(probability, "score")
