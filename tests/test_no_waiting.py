"""A GPU works through a queue of steps: it must not be asked for a value in each of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from adcore.model import Batch
from adcore.registry import create_model
from adcore.request import choose_model
from adcore.testing import tiny_batches
from adcore.training.callbacks import Callback
from adcore.training.trainer import Trainer
from torch.profiler import ProfilerActivity, profile

READS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select"}  # of which the processor needs the result


class Watched(list[Batch], Callback):
    """Batches of an epoch, which is profiled from the first of them until its losses are read."""

    def __init__(self, batches: list[Batch]) -> None:
        super().__init__(batches)
        self.profile = profile(activities=[ProfilerActivity.CPU])
        self.read_after: list[int] = []  # steps

    def __iter__(self) -> Iterator[Batch]:
        self.profile.start()
        yield from super().__iter__()

    def on_step_end(self, trainer: Trainer, logs: dict[str, float]) -> None:
        """Losses have been read."""
        self.profile.stop()
        assert logs
        self.read_after.append(trainer.fit.step)


SGD = {"optimizer": "sgd"}  # torch's Adam counts its steps in a tensor that the processor holds, and reads that


@pytest.mark.parametrize(
    ("model", "size", "settings"),
    [
        ("stfpm-resnet18", 32, SGD),
        pytest.param("fastflow-resnet18", 32, SGD, marks=pytest.mark.slow),
        pytest.param("reverse-distillation-efficientnet-lite0", 64, SGD, marks=pytest.mark.slow),
        ("dinomaly-small-448", 56, {}),
        ("supersimplenet-efficientnet-lite0", 64, SGD),
    ],
)
def test_steps_ask_for_no_value_where_losses_are_read_now_and_then(model, size, settings, monkeypatch) -> None:
    settings = {"image_size": size, "epochs": 1, "batch_size": 2, "weights": "random", **settings}
    choice = choose_model(model, settings)
    batches = Watched(tiny_batches(8, (size, size), 2))
    trainer = Trainer(create_model(model, **choice.config), choice.plan, batches, 8, callbacks=[batches])
    monkeypatch.setattr(trainer.losses, "each_step", False)  # as on a GPU
    monkeypatch.setattr("adcore.training.step_losses.SECONDS", 1000)
    summary = trainer.run()
    assert batches.read_after == [4]  # at the end of the epoch
    assert not READS & {event.key for event in batches.profile.key_averages()}
    assert summary.losses["loss"] > 0


class Strict(list[Batch]):
    """Batches of an epoch of fifty steps; in the first one, torch raises an error where anything waits for the GPU."""

    strict = True

    def __iter__(self) -> Iterator[Batch]:
        for number, batch in enumerate(super().__iter__()):
            if self.strict and number == 5:  # cuDNN has been tuned, and the optimizer has its state
                torch.cuda.set_sync_debug_mode("error")
            yield batch
        torch.cuda.set_sync_debug_mode("default")
        self.strict = False


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
@pytest.mark.parametrize("model", ["stfpm-resnet18", "fastflow-resnet18", "reverse-distillation-efficientnet-lite0"])
def test_steps_on_a_gpu_wait_for_nothing(model, monkeypatch) -> None:
    choice = choose_model(model, {"image_size": 64, "epochs": 2, "batch_size": 2, "weights": "random"})
    batches = Strict(tiny_batches(100, (64, 64), 2))
    monkeypatch.setattr("adcore.training.step_losses.SECONDS", 1000)
    try:
        summary = Trainer(create_model(model, **choice.config), choice.plan, batches, 100, "cuda").run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert summary.steps == 100
    assert summary.losses["loss"] > 0
