"""The golden files themselves: readable, small, and made from a recipe that this environment repeats."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

FILES = sorted((Path(__file__).parent / "golden").glob("*.safetensors"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_file_is_complete_and_finite(golden, path):
    stored = golden(path.stem)
    assert {"options", "input", "parameters", "peer", "model"} <= stored.facts.keys()
    assert "score" in stored.tensors
    for key, value in stored.tensors.items():
        assert torch.isfinite(value).all(), key
    assert stored.tensors["score"].unique().numel() > 1, "one score for all images proves nothing"
    if "map" in stored.tensors:
        assert (stored.tensors["map"].std(dim=(1, 2)) > 0).all(), "a constant map proves nothing"


def test_rounding_leaves_enough_to_compare_after_training(golden):
    """At least the losses of three steps, and what is evaluated after training."""
    for path in FILES:
        stored = golden(path.stem)
        trained = {key for key in stored.tensors if "loss" in key or key.endswith("_after")}
        assert trained - {"score_after"} <= stored.sensitivity.keys(), "run tools/parity/sensitivity.py"
        for key in stored.sensitivity:
            bounds = replace(stored, redrawn=False).allowed(key, 1e-4)
            assert bounds.isfinite()[... if bounds.ndim == 0 else slice(3)].all(), (path.stem, key, bounds)


def test_files_stay_small():
    assert sum(path.stat().st_size for path in FILES) < 3e6


def test_recipe_gives_the_same_numbers_everywhere(golden):
    """The generator's numbers are part of the format: these were written down when the format was."""
    fill = golden(FILES[0].stem).fill
    written_down = [
        (fill.tensor("layer.weight", (4, 3, 3, 3)), [0.074649, -0.177429, -0.369926], 6.9162),
        (fill.tensor("norm.running_var", (7,)), [0.541361, 0.53369, 0.614773], 5.6593),
        (fill.images("input", (1, 3, 16, 16)), [-0.455083, 1.267917, 2.212256], 772.6472),
        (fill.images("input", (1, 3, 16, 16), unit=True), [0.388153, 0.780386, 0.901345], 270.4491),
    ]
    for made, last_three, square_sum in written_down:
        torch.testing.assert_close(made.flatten()[-3:], torch.tensor(last_three), rtol=0, atol=5e-6)
        assert made.double().square().sum().item() == pytest.approx(square_sum, rel=1e-4)
    assert fill.tensor("block.w_perm", (6, 6)).argmax(1).tolist() == [2, 1, 4, 3, 0, 5]


def test_permutation_and_its_inverse_belong_together(golden):
    fill = golden(FILES[0].stem).fill
    forward, inverse = fill.tensor("flow.w_perm", (8, 8)), fill.tensor("flow.w_perm_inv", (8, 8))
    assert torch.equal(forward @ inverse, torch.eye(8))
    assert not torch.equal(forward, torch.eye(8))
