"""DFM against anomalib's answers."""

import math

import pytest
import torch
from adcore.training.plan import Plan
from adcore.training.trainer import Trainer
from adm_memory.dfm import DFM

RENAMES = [(r"^extractor\.net\.", "backbone.")]


def fitted(stored):
    """Our model with the parameters of the golden file, fitted on its batches."""
    options = stored.facts["options"]
    model = DFM(
        options["backbone"],
        options["layer"],
        "random",
        pooling=options["pooling_kernel_size"],
        score=options["score_type"],
    )
    stored.fill_module(model, RENAMES, keep="^(mean|directions|variances)$")
    batches = stored.batches()
    model.variance = int(stored.tensors["components"])  # the peer stops one component short of the part asked for
    Trainer(model, Plan(), batches, num_images=sum(len(batch.images) for batch in batches)).run()
    return model.eval()


@pytest.mark.parametrize("name", ["dfm", "dfm_nll"])
def test_fit(golden, name):
    stored = golden(name)
    model = fitted(stored)
    torch.testing.assert_close(model.mean, stored.tensors["mean"], rtol=1e-4, atol=1e-5)
    stored.assert_map_close(model.directions[:, :16].t() @ model.directions, "projector")


def test_reconstruction_error(golden):
    stored = golden("dfm")
    with torch.no_grad():
        prediction = fitted(stored)(stored.input())
    stored.assert_map_close(prediction.anomaly_map)
    stored.assert_relative(prediction.score, "score")


def test_likelihood(golden):
    """Ours is scipy's; the peer's is twice that without its constant, about a Gaussian that lies elsewhere.

    It takes the mean off the training features twice before it fits the Gaussian, and once from what it scores. So its
    Gaussian lies at the components of minus the mean, and what is as normal as can be gets a high score.
    """
    stored = golden("dfm_nll")
    model = fitted(stored)
    torch.testing.assert_close(model.variances.sqrt(), stored.tensors["deviations"], rtol=1e-4, atol=0)
    with torch.no_grad():
        code = (model.features(stored.input()).flatten(1) - model.mean) @ model.directions.t()
        score = model(stored.input()).score
    log_determinant = model.variances.log().sum()
    constant = len(model.variances) * math.log(2 * math.pi)
    torch.testing.assert_close(2 * score - constant, (code.square() / model.variances).sum(1) + log_determinant)
    displaced = code + model.directions @ model.mean
    stored.assert_relative((displaced.square() / model.variances).sum(1) + log_determinant, "score")
