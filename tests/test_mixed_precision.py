"""Mixed precision: models that search for neighbours or codes, mine or compare learn much as in single precision.

Also on a CPU without bfloat16 instructions, which computes the same, slower; users are refused it there (test_trainer.py).
"""

import pytest
from adcore.testing import fit_tiny

SHORT = {
    "target_layers": (0, 1),
    "decoder_depth": 2,
    "encoder_groups": ((0,), (1,)),
    "decoder_groups": ((0,), (1,)),
}


@pytest.mark.parametrize(
    ("card", "settings"),
    [
        ("cfa-resnet18", {"weights": "random"}),
        ("stfpm-resnet18", {"weights": "random"}),
        ("dinomaly-small-224", {"weights": "random", "size": 56, **SHORT}),
        ("draem", {"reconstructive_width": 8, "discriminative_width": 8}),
        ("dsr", {"embedding_dim": 16, "num_embeddings": 64}),
    ],
)
def test_the_first_epoch_is_nearly_that_of_single_precision(card, settings, monkeypatch):
    monkeypatch.setattr("adcore.training.device.has_mixed_precision", lambda device: True)
    single, mixed = (
        fit_tiny(card, epochs=1, precision=precision, **settings)[1].history[0] for precision in ("float32", "mixed")
    )
    assert mixed.keys() == single.keys()
    assert mixed["loss"] == pytest.approx(single["loss"], rel=0.05)
    assert mixed["loss"] != single["loss"]
