"""Schedulers: a fit that was stopped and resumed follows them as one that was not, and wrong options are refused."""

from __future__ import annotations

import pytest
import torch
from adcore.cards import ModelCard
from adcore.errors import ConfigError, TrainingError
from adcore.model import AnomalyModel, Update
from adcore.testing import tiny_batches
from adcore.testing.resume import ResumableBatches, StopAt
from adcore.training.plan import Plan
from adcore.training.schedules import SCHEDULERS
from adcore.training.trainer import Trainer
from safetensors.torch import load_file

CARD = ModelCard("toy", "x:Y", "toy", "Toy", "none", 2020, "toy", epochs=3)
OPTIONS = {
    "steplr": {"step_size": 1},
    "multisteplr": {"milestones": [1, 3, 4]},
    "exponential": {"gamma": 0.5},
    "cosine": {"T_max": 6, "eta_min": 0.01},
    "linear": {"total_iters": 9},
    "warmup_cosine": {"total_steps": 12, "warmup_steps": 3},
    "onecycle": {"max_lr": 0.5, "total_steps": 20},
}


class Dropped(AnomalyModel):
    """A weight behind dropout, pulled towards the images."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(3, 16, 16))

    def configure_optimizers(self, plan):
        return {"main": plan.optimization([self.weight], "adam", learning_rate=0.1)}

    def training_step(self, batch, step):
        yield Update((torch.dropout(self.weight, 0.2, train=self.training) - batch.images).square().mean())


def trainer(folder, scheduler, watch, stop_in_validation=None) -> Trainer:
    """4 epochs of 5 batches, an optimizer step for every 2 of them and at each epoch's end; a validation every 3."""
    calls = []

    def validation():
        calls.append(1)
        if len(calls) == stop_in_validation:
            raise KeyboardInterrupt
        return tiny_batches(2, (16, 16), 1, seed=5)

    plan = Plan(
        epochs=4, accumulate=2, checkpoint_seconds=0, scheduler=scheduler, monitor="val_loss", validate_every_steps=3
    )
    batches = ResumableBatches(tiny_batches(5, (16, 16), 1))
    return Trainer(Dropped(), plan, batches, 5, val_loader=validation, callbacks=[watch], checkpoints=folder)


@pytest.mark.parametrize("stop", [{"at": 9}, {"at": 8}, {"in_validation": 4}], ids=["epoch", "accumulation", "val"])
@pytest.mark.parametrize("interval", ["epoch", "step"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_resumed_fit_follows_its_schedule_to_the_last_bit(tmp_path, name, interval, stop) -> None:
    scheduler = {"type": name, "interval": interval, **OPTIONS[name]}
    torch.manual_seed(1)
    undisturbed = trainer(tmp_path / "whole", scheduler, whole := StopAt())
    summary = undisturbed.run()
    assert len(set(whole.rates.values())) > 2  # else the resume could not go wrong

    torch.manual_seed(1)
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path / "stopped", scheduler, StopAt(stop.get("at")), stop.get("in_validation")).run()
    torch.manual_seed(99)
    resumed = trainer(tmp_path / "stopped", scheduler, rest := StopAt())
    again = resumed.run(resume=True)
    assert 5 < min(rest.rates) < 12  # it did go on from a checkpoint
    assert rest.rates == {step: whole.rates[step] for step in rest.rates}
    assert torch.equal(resumed.model.weight, undisturbed.model.weight)
    assert (again.losses, again.history) == (summary.losses, summary.history)
    for file in ("best", "last"):
        first, second = (load_file(tmp_path / run / f"{file}.safetensors") for run in ("whole", "stopped"))
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_optimizer_steps_count_accumulations_and_what_an_epoch_leaves() -> None:
    assert Plan(epochs=4, steps_per_epoch=5).optimizer_steps == 20
    assert Plan(epochs=4, steps_per_epoch=5, accumulate=2).optimizer_steps == 12
    assert Plan(epochs=4, steps_per_epoch=5, accumulate=2, max_steps=13).optimizer_steps == 3 + 3 + 2
    assert Plan(epochs=4, steps_per_epoch=5, accumulate=9).optimizer_steps == 4


def test_a_schedule_over_the_plans_optimizer_steps_is_completed_with_accumulation() -> None:
    steps = Plan(epochs=4, steps_per_epoch=5, accumulate=2).optimizer_steps
    watch = StopAt()
    trainer(None, {"type": "warmup_cosine", "total_steps": steps}, watch).run()
    assert watch.rates[18][0] > 0  # the last step but one: it is the epoch's end that steps for the last time
    last = trainer(None, {"type": "warmup_cosine", "total_steps": steps}, StopAt())
    last.run()
    assert last.optimizations["main"].optimizer.param_groups[0]["lr"] == 0


def test_onecycle_beyond_its_steps_is_one_clear_line() -> None:
    with pytest.raises(TrainingError, match="OneCycleLR of optimizer 'main' cannot go on"):
        trainer(None, {"type": "onecycle", "max_lr": 0.5, "total_steps": 3}, StopAt()).run()


@pytest.mark.parametrize("name", ["StepLR", "STEPLR", "steplr"])
def test_scheduler_and_optimizer_names_may_be_in_any_case(name) -> None:
    plan = Plan.for_card(CARD, scheduler={"type": name, "step_size": 3}, optimizer="Adam")
    built = plan.optimization([torch.nn.Parameter(torch.zeros(1))], "adam", learning_rate=1.0, betas=(0.5, 0.9))
    assert built.scheduler.step_size == 3
    assert built.optimizer.defaults["betas"] == (0.5, 0.9)  # the model's own, for the optimizer is the model's


@pytest.mark.parametrize(
    ("scheduler", "words"),
    [
        ({"type": "steplr", "step_size": 0}, r"'steplr': step_size: .*1 \(got 0\)"),
        ({"type": "steplr", "step_size": -3}, r"'steplr': step_size: .*got -3"),
        ({"type": "steplr", "step_size": True}, r"'steplr': step_size: .*not true or false"),
        ({"type": "steplr", "step_size": 2, "gamma": "half"}, r"'steplr': gamma: .*got 'half'"),
        ({"type": "steplr", "step_size": 2, "gamma": float("nan")}, r"'steplr': gamma: .*finite"),
        ({"type": "steplr"}, r"'steplr': step_size: field required"),
        ({"type": "multisteplr", "milestones": 5}, r"'multisteplr': milestones: .*list \(got 5\)"),
        ({"type": "multisteplr", "milestones": ["late"]}, r"'multisteplr': milestones.0: .*got 'late'"),
        ({"type": "cosine", "T_max": 0}, r"'cosine': T_max: .*got 0"),
        (
            {"type": "cosine", "T_max": 5, "interval": "batch"},
            r"'cosine': interval must be epoch or step \(got 'batch'",
        ),
        ({"type": "linear", "start_factor": 0}, r"'linear': start_factor: .*got 0"),
        ({"type": "onecycle", "max_lr": 0.5}, r"'onecycle': You must define either total_steps .*got .*0.5"),
        (
            {"type": "steplr", "step_size": 2, "last_epoch": 7},
            "has no option 'last_epoch'; valid ones: step_size, gamma",
        ),
        ({"type": ["steplr"]}, "unknown scheduler type"),
    ],
)
def test_wrong_scheduler_values_are_refused_before_anything_starts(scheduler, words) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        Plan.for_card(CARD, scheduler=scheduler)
    assert "\n" not in str(caught.value)
