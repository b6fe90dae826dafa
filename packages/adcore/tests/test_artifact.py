"""Artifacts: whole round trips, and a clear refusal of everything else."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from adcore import artifact as artifacts
from adcore import registry, tensorfile
from adcore.artifact import Artifact
from adcore.cards import ModelCard
from adcore.errors import ArtifactError, PluginError
from adcore.model import AnomalyModel, Prediction
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
def _toy_is_installed(install_toy) -> None:
    install_toy(CARD, Toy)


@pytest.fixture
def saved(tmp_path) -> Path:
    model = registry.create_model("toy", width=3)
    model.bank, model.fitted = torch.arange(5.0), True
    calibration = {"threshold": {"value": 0.1 + 0.2, "method": "youden"}, "score_range": [0.0, 1.0]}
    artifact = Artifact(model, Preprocess((8, 9)), calibration, {"seed": 1})
    artifacts.save(tmp_path / "model.safetensors", artifact)
    return tmp_path / "model.safetensors"


def stored(path: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    """(header without its checksum, tensors) of a file."""
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["adcore"])
        tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
    del header["sha256"]
    return header, tensors


def rewrite(path: Path, **changes: object) -> None:
    """Change entries of the header, and write a checksum that fits, as a foreign program would."""
    header, tensors = stored(path)
    tensorfile.write(path, artifacts.KIND, header | changes, tensors)


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
    header, _ = stored(saved)
    tensorfile.write(saved, artifacts.KIND, header, {"scale": torch.ones(3), "other": torch.ones(1)})
    with pytest.raises(ArtifactError, match=r"model\.safetensors.*missing \['bank'\], unexpected \['other'\]"):
        artifacts.load(saved)
    tensorfile.write(saved, artifacts.KIND, header, {"scale": torch.ones(4), "bank": torch.ones(1)})
    with pytest.raises(ArtifactError, match=r"model\.safetensors.*do not fit the model.*scale"):
        artifacts.load(saved)


def test_a_failed_save_leaves_the_old_file_and_no_other(saved, monkeypatch) -> None:
    before = saved.read_bytes()

    def fail(*args: object, **kwargs: object) -> None:
        Path(args[1]).write_bytes(b"half")
        raise OSError("disk full")

    artifact = artifacts.load(saved)
    monkeypatch.setattr("safetensors.torch.save_file", fail)
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


def test_a_flipped_bit_in_a_tensor_is_refused(saved) -> None:
    content = saved.read_bytes()
    for place in range(len(content) - 32, len(content)):  # of the tensors: 8 numbers of 4 bytes
        saved.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(ArtifactError, match=r"model\.safetensors is damaged: .*checksum"):
            artifacts.load(saved)


def test_a_file_with_the_older_checksum_is_read_and_a_flipped_bit_in_it_refused(saved) -> None:
    header, tensors = stored(saved)
    header["format"] = 2
    record, digest = json.dumps(header, sort_keys=True), hashlib.sha256()
    digest.update(record.encode())
    for name, shape in (("bank", [5]), ("scale", [3])):
        digest.update(json.dumps([name, "torch.float32", shape]).encode() + tensors[name].numpy().tobytes())
    save_file(tensors, saved, {"adcore": json.dumps(header | {"sha256": digest.hexdigest()})})
    assert torch.equal(artifacts.load(saved).model.bank, torch.arange(5.0))
    content = saved.read_bytes()
    saved.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ArtifactError, match=r"model\.safetensors is damaged: .*checksum"):
        artifacts.load(saved)


def test_exchanged_names_of_tensors_are_refused(saved) -> None:
    header, tensors = stored(saved)
    tensorfile.write(saved, artifacts.KIND, header, {"aa": tensors["scale"], "bb": tensors["scale"] + 1})
    content = saved.read_bytes()
    changed = content.replace(b'"aa"', b'"xx"').replace(b'"bb"', b'"aa"').replace(b'"xx"', b'"bb"')
    assert changed != content
    saved.write_bytes(changed)
    with pytest.raises(ArtifactError, match=r"model\.safetensors is damaged: .*checksum"):
        artifacts.load(saved)


def test_a_header_changed_by_hand_is_refused(saved) -> None:
    content = saved.read_bytes()
    changed = content.replace(b"0.30000000000000004", b"0.20000000000000004")
    assert changed != content
    saved.write_bytes(changed)
    with pytest.raises(ArtifactError, match=r"model\.safetensors is damaged: .*checksum"):
        artifacts.load(saved)


def test_a_file_without_a_checksum_is_refused(saved) -> None:
    header, tensors = stored(saved)
    save_file(tensors, saved, {"adcore": json.dumps(header | {"format": 1})})
    with pytest.raises(
        ArtifactError, match=r"model\.safetensors has format 1.*without a checksum; train the model again"
    ):
        artifacts.load(saved)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"config": None}, "config"),
        ({"config": {"width": "wide"}}, "width"),
        ({"config": {"height": 3}}, "height"),
        ({"preprocess": {"size": [0, 9]}}, "preprocess.size"),
        ({"preprocess": {"size": [8, 9], "crop": [9, 9]}}, "larger than image_size"),
        ({"preprocess": {"size": [8, 9], "std": [1.0, 0.0, 1.0]}}, "preprocess.std"),
        ({"preprocess": {"size": [8, 9], "zoom": 2}}, "preprocess.zoom"),
        ({"calibration": {"threshold": {"method": "youden"}, "score_range": [0.0, 1.0]}}, "threshold.value"),
        ({"calibration": {"threshold": {"value": 1.0, "method": "youden"}}}, "calibration is incomplete"),
        ({"calibration": {"score_range": [0.0, 1.0]}}, "calibration is incomplete"),
        ({"backbones": [{"prefix": ""}]}, "backbones.0"),
        ({"backbones": {}}, "backbones"),
        ({"format": "2"}, "format"),
        ({"format": True}, "format"),
        ({"format": None}, "format"),
        ({"versions": 3}, "versions"),
        ({"comment": "x"}, "comment"),
    ],
)
def test_a_header_that_is_not_of_the_schema_is_one_line(saved, change, named) -> None:
    rewrite(saved, **change)
    with pytest.raises(ArtifactError) as refused:
        artifacts.load(saved)
    assert str(saved) in str(refused.value)
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_a_threshold_that_is_not_finite_is_refused(saved, value) -> None:
    header, tensors = stored(saved)
    header["calibration"]["threshold"]["value"] = float(value)
    digest = tensorfile.checksum_by_tensor(header, tensors)
    save_file(tensors, saved, {"adcore": json.dumps(header | {"sha256": digest})})
    with pytest.raises(ArtifactError, match=r"model\.safetensors has a damaged header: calibration\.threshold\.value"):
        artifacts.load(saved)


def test_a_threshold_that_is_not_finite_is_not_saved(saved, tmp_path) -> None:
    artifact = artifacts.load(saved)
    artifact.calibration["threshold"]["value"] = float("nan")
    with pytest.raises(ArtifactError, match=r"other\.safetensors cannot be written.*calibration\.threshold\.value"):
        artifacts.save(tmp_path / "other.safetensors", artifact)
    assert not (tmp_path / "other.safetensors").exists()


def test_a_class_that_fails_to_build_is_named(saved, monkeypatch) -> None:
    def fail(self, width: int = 2) -> None:
        raise KeyError("no such thing")

    monkeypatch.setattr(Toy, "__init__", fail)
    with pytest.raises(PluginError, match=r"model\.safetensors: model 'toy' of toy-package 1\.0 .*KeyError"):
        artifacts.load(saved)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_umask_decides_who_may_read_the_file(saved, tmp_path, mask, mode) -> None:
    artifact = artifacts.load(saved)
    before = os.umask(mask)
    try:
        artifacts.save(tmp_path / "other.safetensors", artifact)
    finally:
        os.umask(before)
    assert (tmp_path / "other.safetensors").stat().st_mode & 0o777 == mode
