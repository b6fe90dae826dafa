"""Loading a model file opens no path that stands in it: weights are inside, or found by the backbone's name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from adcore import artifact as artifacts
from adcore import tensorfile
from adcore.artifact import Artifact
from adcore.backbones.build import create_backbone, stored_weights
from adcore.errors import WeightsError
from adcore.registry import create_model
from adcore.testing.tiny import fit_tiny, tiny_images
from safetensors import safe_open
from safetensors.torch import save_file

GONE = "/nonexistent/folder"


@pytest.fixture
def saved(tmp_path) -> tuple[Path, torch.Tensor]:
    """A model trained with weights=FILE, where that file is gone; and its scores."""
    own = tmp_path / "own.safetensors"
    save_file(create_backbone("resnet18", "random").state_dict(), own)
    model, _, choice = fit_tiny("padim-resnet18", 32, epochs=1, weights=str(own))
    artifacts.save(tmp_path / "model.safetensors", Artifact(model, choice.preprocess))
    own.unlink()
    return tmp_path / "model.safetensors", model(tiny_images(2, (32, 32))).score


def test_weights_from_a_named_file_travel_inside(saved) -> None:
    path, scores = saved
    loaded = artifacts.load(path)
    assert torch.equal(loaded.model(tiny_images(2, (32, 32))).score, scores)
    artifacts.save(path.with_name("again.safetensors"), loaded)  # also when it is saved once more
    assert path.with_name("again.safetensors").read_bytes() == path.read_bytes()


def test_a_path_in_a_model_file_is_not_opened(saved, monkeypatch) -> None:
    path, _ = saved
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["adcore"])
        tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
    del header["sha256"]
    secret = path.with_name("secret.pth")
    torch.save({"a": torch.zeros(1)}, secret)
    header["config"]["weights"], header["backbones"][0]["inside"] = str(secret), False
    tensorfile.write(path, artifacts.KIND, header, tensors)
    monkeypatch.setattr("adcore.backbones.resolve.find", lambda card: None)
    with pytest.raises(WeightsError, match="no weights for backbone 'resnet18'") as refused:
        artifacts.load(path)
    assert str(path) in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("efficientad-small", {"teacher": GONE, "teacher_images": GONE, "penalty_images": GONE}),
        ("draem", {"textures": GONE}),
        ("dsr", {"vq_weights": GONE}),
        ("stfpm-resnet18", {"weights": GONE}),
        ("dfm", {"weights": GONE}),
        ("uflow-resnet18", {"weights": GONE}),
    ],
)
def test_a_trained_model_needs_no_path_of_its_training(model, settings) -> None:
    with stored_weights(inside=True):
        assert create_model(model, **settings).config.items() >= settings.items()
