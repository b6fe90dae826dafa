"""Every model's own schedules: a fit that was stopped and resumed follows them as one that was not."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from adcore.cards import load_target
from adcore.config import config_fields
from adcore.model import AnomalyModel, Update
from adcore.registry import create_model, list_models, model_card
from adcore.testing import tiny_batches
from adcore.testing.resume import ResumableBatches, StopAt
from adcore.training.plan import Plan
from adcore.training.trainer import Trainer

MODELS = """
autoencoder cfa cflow-resnet18 csflow dinomaly-aux draem draem-sevnet dsr efficientad-small fastflow fre ganomaly
inp-former reverse-distillation stfpm supersimplenet uflow uninet
""".split()  # noqa: SIM905 (a card of each class that has optimizers)


class SmallPlan(Plan):
    """Gives each parameter group of a model one small parameter, whatever the model's own."""

    def optimization(self, parameters, *options, **more):
        groups = list(parameters)
        groups = groups if isinstance(groups[0], dict) else [{"params": groups}]
        small = [{**group, "params": [torch.nn.Parameter(torch.ones(2))]} for group in groups]
        return super().optimization(small, *options, **more)


class Shell(AnomalyModel):
    """A model's optimizers and schedulers on parameters of two numbers."""

    def __init__(self, real: AnomalyModel) -> None:
        super().__init__()
        self.configure = real.configure_optimizers
        self.small = torch.nn.ParameterDict()

    def configure_optimizers(self, plan):
        optimizations = self.configure(plan)
        for name, optimization in optimizations.items():
            for number, group in enumerate(optimization.optimizer.param_groups):
                self.small[f"{name}{number}"] = group["params"][0]
        return optimizations

    def training_step(self, batch, step):
        for name in {key.rstrip("0123456789"): None for key in self.small}:
            own = [value for key, value in self.small.items() if key.rstrip("0123456789") == name]
            yield Update(sum((value - batch.images.mean()).square().sum() for value in own), name)


@cache
def model(name: str) -> AnomalyModel:
    fields = config_fields(load_target(model_card(name).target))
    random = {key: "random" for key in ("weights", "teacher") if key in fields}
    with torch.device("meta"):  # only what the model does with its plan is looked at
        return create_model(name, **random)


def trainer(name: str, folder, watch: StopAt, accumulate: int = 1, stop_in_validation: int | None = None) -> Trainer:
    calls = []

    def validation():
        calls.append(1)
        if len(calls) == stop_in_validation:
            raise KeyboardInterrupt
        return tiny_batches(1, (8, 8), 1)

    batches = ResumableBatches(tiny_batches(3, (8, 8), 1))
    plan = SmallPlan(epochs=10, accumulate=accumulate, checkpoint_seconds=0, monitor="val_loss", batch_size=1)
    return Trainer(Shell(model(name)), plan, batches, 3, val_loader=validation, callbacks=[watch], checkpoints=folder)


def test_the_list_has_every_class_with_optimizers() -> None:
    kinds = {load_target(card.target) for card in list_models() if card.target.startswith("adm_")}
    trained = {kind for kind in kinds if kind.configure_optimizers is not AnomalyModel.configure_optimizers}
    assert {load_target(model_card(name).target) for name in MODELS} == trained


@pytest.mark.parametrize(
    "stop",
    [{"watch": StopAt(14)}, {"watch": StopAt(17), "accumulate": 3}, {"watch": StopAt(), "stop_in_validation": 6}],
    ids=["epoch", "accumulation", "validation"],
)
@pytest.mark.parametrize("name", MODELS)
def test_a_resumed_fit_follows_the_models_own_schedule_to_the_last_bit(tmp_path, name, stop) -> None:
    accumulate = stop.get("accumulate", 1)
    undisturbed = trainer(name, tmp_path / "whole", whole := StopAt(), accumulate)
    undisturbed.run()
    with pytest.raises(KeyboardInterrupt):
        trainer(name, tmp_path / "stopped", **stop).run()
    resumed = trainer(name, tmp_path / "stopped", rest := StopAt(), accumulate)
    resumed.run(resume=True)
    assert 10 < min(rest.rates) < 20
    assert rest.rates == {step: whole.rates[step] for step in rest.rates}
    first, second = undisturbed.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(
    ("name", "share"), [("draem", 0.01), ("draem-sevnet", 0.01), ("uninet", 0.2), ("supersimplenet", 0.16)]
)
def test_the_rate_falls_after_a_resume(tmp_path, name, share) -> None:
    with pytest.raises(KeyboardInterrupt):
        trainer(name, tmp_path, watch := StopAt(8)).run()
    before = watch.rates[8]
    resumed = trainer(name, tmp_path, StopAt())
    resumed.run(resume=True)
    groups = resumed.optimizations["main"].optimizer.param_groups
    assert [group["lr"] for group in groups] == pytest.approx([rate * share for rate in before])


@pytest.mark.parametrize(("name", "share"), [("dinomaly-aux", 0.1), ("efficientad-small", 0.1)])
@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_schedules_over_the_whole_fit_are_completed_with_accumulation(name, share, accumulate) -> None:
    made = trainer(name, None, StopAt(), accumulate)
    made.run()
    for optimization in made.optimizations.values():
        [group] = optimization.optimizer.param_groups
        assert group["lr"] == pytest.approx(share * group["initial_lr"])
