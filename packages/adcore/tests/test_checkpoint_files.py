"""Damaged checkpoints: every damage is one line that names the file."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from adcore import tensorfile
from adcore.errors import ArtifactError, TrainingError
from adcore.model import AnomalyModel, Update
from adcore.testing import tiny_batches
from adcore.training.checkpoint import CHECKPOINT, WEIGHTS, load_weights
from adcore.training.plan import Plan
from adcore.training.trainer import Trainer


class Line(AnomalyModel):
    """One convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 3, 1)

    def configure_optimizers(self, plan):
        return {"main": plan.optimization(self.parameters(), "adam", learning_rate=0.01)}

    def training_step(self, batch, step):
        yield Update((self.layer(batch.images) - batch.images).square().mean())


def trainer(folder: Path) -> Trainer:
    batches = tiny_batches(4, (8, 8), 2)
    return Trainer(Line(), Plan(epochs=1, batch_size=2), batches, 4, checkpoints=folder, identity={"model": "line"})


@pytest.fixture
def last(tmp_path) -> Path:
    trainer(tmp_path).run()
    return tmp_path / "last.safetensors"


def refused(path: Path) -> str:
    with pytest.raises((ArtifactError, TrainingError)) as error:
        trainer(path.parent).run(resume=True)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_whole_checkpoint_is_continued(last) -> None:
    assert trainer(last.parent).run(resume=True).epochs == 1


def test_changed_cut_and_foreign_files_are_refused(last) -> None:
    content = last.read_bytes()
    for place in range(8, len(content), max(1, len(content) // 40)):
        last.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        assert "without --resume" in refused(last)
    for other in (b"", content[:7], content[:-1], pickle.dumps({"a": 1}), b"x" * 100):
        last.write_bytes(other)
        refused(last)


@pytest.mark.parametrize("key", ["format", "identity", "progress", "stepper", "optimizers", "random"])
@pytest.mark.parametrize("value", ["absent", None, [], {}, "x", {"main": {}}])
def test_a_record_that_is_not_of_this_fit_is_refused(last, key, value) -> None:
    record, tensors = tensorfile.read_record(last, CHECKPOINT), tensorfile.read_tensors(last, CHECKPOINT)
    whole = {name: entry for name, entry in record.items() if name not in ("sha256", key)}
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    tensorfile.write(last, CHECKPOINT, whole if value == "absent" else whole | {key: value}, tensors)
    refused(last)


def test_damaged_weights_of_the_best_validation_are_refused(tmp_path) -> None:
    path, model = tmp_path / "best.safetensors", Line()
    tensorfile.write(path, WEIGHTS, {}, model.state_dict())
    content = path.read_bytes()
    for place in (20, len(content) - 1):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(ArtifactError, match=r"best\.safetensors"):
            load_weights(path, model, torch.device("cpu"))
    tensorfile.write(path, WEIGHTS, {}, {"layer.weight": torch.zeros(2)})
    with pytest.raises(ArtifactError, match=r"best\.safetensors.*do not fit"):
        load_weights(path, model, torch.device("cpu"))


def test_numbers_and_keys_come_back_as_json_has_them(tmp_path) -> None:
    path = tmp_path / "x.safetensors"
    record = {"b": (1, 2), "a": {10: 0.1, 9: float("inf")}}
    tensorfile.write(path, CHECKPOINT, record, {"t": torch.zeros(2, dtype=torch.bfloat16)})
    found = tensorfile.read_record(path, CHECKPOINT)
    tensorfile.verify(path, CHECKPOINT, found, tensorfile.read_tensors(path, CHECKPOINT))
    assert found | {"sha256": ""} == json.loads(json.dumps(record)) | {"sha256": ""}
