"""Artifacts: whole round trips, and a clear refusal of everything else."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from adcore import artifact as artifacts
from adcore import registry
from adcore.artifact import Artifact
from adcore.cards import ModelCard
from adcore.errors import ArtifactError, PluginError
from adcore.model import AnomalyModel, Prediction
from adcore.plugins import Origin
from adcore.preprocess import Preprocess
from safetensors import safe_open
from safetensors.torch import save_file

MODEL_CARD = registry.model_card
CARD = ModelCard("toy", f"{__name__}:Toy", "toy", "Toy", "none", 2020, "toy")


class Toy(AnomalyModel):
    def __init__(self, width: int = 2) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(width))
        self.register_buffer("bank", torch.empty(0))

    def forward(self, images: torch.Tensor) -> Prediction:
        return Prediction(images.mean((1, 2, 3)) * self.scale.sum() + self.bank.sum())


@pytest.fixture(autouse=True)
def _toy_is_installed(monkeypatch) -> None:
    monkeypatch.setattr(registry, "model_card", lambda name: CARD)
    monkeypatch.setattr(registry, "model_origin", lambda name: Origin("toy", "toy-package", "1.0"))
    monkeypatch.setattr(registry, "load_target", lambda target: Toy)


@pytest.fixture
def saved(tmp_path) -> Path:
    model = registry.create_model("toy", width=3)
    model.bank, model.fitted = torch.arange(5.0), True
    calibration = {"threshold": {"value": 0.1 + 0.2, "method": "youden"}, "score_range": [0.0, 1.0]}
    artifact = Artifact(model, Preprocess((8, 9)), calibration, {"seed": 1})
    artifacts.save(tmp_path / "model.safetensors", artifact)
    return tmp_path / "model.safetensors"


def rewrite(path: Path, **changes: object) -> None:
    """Change entries of the header."""
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["adcore"]) | changes
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    save_file(tensors, path, {"adcore": json.dumps(header)})


def test_round_trip(saved) -> None:
    loaded = artifacts.load(saved)
    assert torch.equal(loaded.model.bank, torch.arange(5.0))
    assert loaded.model.scale.shape == (3,)
    assert loaded.preprocess == Preprocess((8, 9))
    assert loaded.calibration["threshold"]["value"] == 0.1 + 0.2  # to the last bit
    assert loaded.model(torch.zeros(2, 3, 8, 9)).score.tolist() == [10.0, 10.0]


def test_the_same_model_gives_the_same_bytes(saved, tmp_path) -> None:
    artifacts.save(tmp_path / "again.safetensors", artifacts.load(saved))
    assert (tmp_path / "again.safetensors").read_bytes() == saved.read_bytes()


@pytest.mark.parametrize(
    ("package", "version", "words"),
    [
        ("no-such-package", "3.2", "the package no-such-package 3.2, which is not installed; install it: pip install"),
        ("pytest", "0.1", "is installed and has no such model|ADCORE_DISABLE_PLUGINS leaves out"),
        ("adm-memory", "0.0.1", "has no such model; pip install adm-memory==0.0.1"),
    ],
)
def test_a_model_whose_package_is_absent_says_what_to_install(saved, monkeypatch, package, version, words) -> None:
    rewrite(saved, model="patchcoer", package=package, package_version=version)
    monkeypatch.setattr(registry, "model_card", MODEL_CARD)
    with pytest.raises(PluginError, match=words) as caught:
        artifacts.load(saved)
    assert str(saved) in str(caught.value)
    assert "did you mean" not in str(caught.value)


def test_a_truncated_file_is_refused(saved) -> None:
    content = saved.read_bytes()
    for length in (0, 5, 40, len(content) - 1):
        saved.write_bytes(content[:length])
        with pytest.raises(ArtifactError, match=r"model\.safetensors is truncated"):
            artifacts.load(saved)


def test_a_newer_format_says_which_adcore_made_it(saved) -> None:
    rewrite(saved, format=99, versions={"adcore": "9.1"})
    with pytest.raises(ArtifactError, match=r"format 99 \(made by adcore 9\.1\).*upgrade adcore"):
        artifacts.load(saved)


@pytest.mark.parametrize("write", [torch.save, lambda data, path: path.write_bytes(pickle.dumps(data))])
def test_a_pickle_in_disguise_is_refused_unopened(tmp_path, write) -> None:
    path = tmp_path / "model.safetensors"
    write({"bank": torch.zeros(1)}, path)
    with pytest.raises(ArtifactError, match="is a pickle"):
        artifacts.load(path)


def test_a_header_whose_length_begins_like_a_pickle_is_read(saved) -> None:
    raw = saved.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    spaces = (0x80 - length) % 256
    saved.write_bytes((length + spaces).to_bytes(8, "little") + raw[8 : 8 + length] + b" " * spaces + raw[8 + length :])
    assert saved.read_bytes()[:1] == b"\x80"
    artifacts.load(saved)


def test_foreign_safetensors_and_missing_files_are_named(tmp_path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ArtifactError, match="not an adcore artifact"):
        artifacts.load(tmp_path / "x.safetensors")
    with pytest.raises(ArtifactError, match="does not exist"):
        artifacts.load(tmp_path / "none.safetensors")


def test_tensors_that_do_not_fit_are_named(saved) -> None:
    with safe_open(saved, "pt") as file:
        metadata = file.metadata()
    save_file({"scale": torch.ones(3), "other": torch.ones(1)}, saved, metadata)
    with pytest.raises(ArtifactError, match=r"missing \['bank'\], unexpected \['other'\]"):
        artifacts.load(saved)
    save_file({"scale": torch.ones(4), "bank": torch.ones(1)}, saved, metadata)
    with pytest.raises(ArtifactError, match="do not fit the model.*scale"):
        artifacts.load(saved)


def test_a_failed_save_leaves_the_old_file_and_no_other(saved, monkeypatch) -> None:
    before = saved.read_bytes()

    def fail(*args: object, **kwargs: object) -> None:
        Path(args[1]).write_bytes(b"half")
        raise OSError("disk full")

    artifact = artifacts.load(saved)
    monkeypatch.setattr(artifacts, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        artifacts.save(saved, artifact)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_the_folder_of_a_run_stands_for_its_model(saved) -> None:
    assert artifacts.read_header(saved.parent) == artifacts.read_header(saved)
    assert artifacts.load(saved.parent).model.fitted
    saved.unlink()
    with pytest.raises(ArtifactError, match=r"model\.safetensors does not exist"):
        artifacts.load(saved.parent)
