"""The trainer: what a user sees of schedules, stops, resumes and failures."""

from __future__ import annotations

import math

import pytest
import torch
from adcore.errors import ArtifactError, ConfigError, TrainingError
from adcore.model import AnomalyModel, Prediction, Update
from adcore.testing import tiny_batches
from adcore.testing.resume import ResumableBatches, StopAt
from adcore.training.callbacks import Callback, ProgressBar
from adcore.training.logs import DetailLog, TensorBoardLogs
from adcore.training.plan import Plan
from adcore.training.trainer import Trainer
from adcore.training.warmup import WarmupCosineLR
from safetensors.torch import load_file


class Toy(AnomalyModel):
    """Two alternating optimizers, dropout and noise: everything a resume could get wrong."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.coder = torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.BatchNorm2d(4), torch.nn.Dropout(0.2)
        )
        self.judge = torch.nn.Conv2d(4, 3, 1)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.nan_at = None

    def configure_optimizers(self, plan):
        cosine = {"type": "warmup_cosine", "total_steps": plan.total_steps, "warmup_steps": 2}
        return {
            "main": plan.optimization(self.coder.parameters(), "adam", learning_rate=0.01, scheduler=cosine),
            "judge": plan.optimization(self.judge.parameters(), "sgd", learning_rate=0.01, momentum=0.9),
        }

    def training_step(self, batch, step):
        self.seen += len(batch.images)
        noisy = batch.images + 0.1 * torch.randn_like(batch.images)
        loss = (self.judge(self.coder(noisy)) - batch.images).square().mean()
        if step == self.nan_at:
            loss = loss * math.nan
        yield Update(loss)
        yield Update((self.judge(self.coder(noisy)) - batch.images).abs().mean(), "judge", {"extra": 1.0})

    def forward(self, images):
        maps = (self.judge(self.coder(images)) - images).abs().mean(1)
        return Prediction(maps.flatten(1).amax(1), maps)


class Gatherer(AnomalyModel):
    """Learns in one pass: the number of images of each step."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes = []

    def training_step(self, batch, step):
        self.sizes.append(len(batch.images))
        yield from ()

    def forward(self, images):
        return Prediction(images.flatten(1).mean(1))


class Splitting(ResumableBatches):
    """Batches with the loader's `one_by_one`."""

    def one_by_one(self):
        self[:] = tiny_batches(8, (16, 16), 1)


def trainer(plan=None, folder=None, callbacks=(), model=None, **options) -> Trainer:
    batches = ResumableBatches(tiny_batches(8, (16, 16), 2))
    return Trainer(
        model or Toy(),
        plan or Plan(epochs=3, checkpoint_seconds=0),
        batches,
        8,
        checkpoints=folder,
        callbacks=callbacks,
        **options,
    )


def run(seed=1, **options):
    made = trainer(**options)
    torch.manual_seed(seed)
    return made, made.run()


@pytest.mark.parametrize("killed_at", [1, 2, 4, 5, 11])
def test_a_killed_and_resumed_fit_equals_an_undisturbed_one_to_the_last_bit(tmp_path, killed_at) -> None:
    whole, summary = run(folder=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(folder=tmp_path / "killed", callbacks=[StopAt(killed_at)])
    resumed = trainer(folder=tmp_path / "killed")
    torch.manual_seed(99)  # whatever the new process starts with
    again = resumed.run(resume=(tmp_path / "killed" / "last.safetensors").is_file()) if killed_at > 1 else None
    if killed_at == 1:  # killed before the first checkpoint: nothing is there to go on with
        assert not (tmp_path / "killed").exists()
        return
    first, second = whole.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert again.history == summary.history
    assert again.losses == summary.losses


def test_more_epochs_may_be_asked_for_on_resume_but_nothing_else_may_change(tmp_path) -> None:
    run(folder=tmp_path, identity={"model": "toy", "seed": 1})
    made = trainer(Plan(epochs=5), tmp_path, identity={"model": "toy", "seed": 1})
    assert made.run(resume=True).epochs == 5
    with pytest.raises(TrainingError, match="seed was 1, is 2"):
        trainer(folder=tmp_path, identity={"model": "toy", "seed": 2}).run(resume=True)
    (tmp_path / "last.safetensors").write_bytes(b"broken")
    with pytest.raises(ArtifactError, match="without --resume"):
        trainer(folder=tmp_path).run(resume=True)


def test_a_nan_loss_names_step_images_and_the_good_checkpoint(tmp_path) -> None:
    model = Toy()
    model.nan_at = 5
    with pytest.raises(TrainingError, match=r"nan at step 5 on tiny_2\.png, tiny_3\.png; .*last\.safetensors"):
        run(folder=tmp_path, model=model)
    resumed = trainer(folder=tmp_path)
    resumed.run(resume=True)
    assert all(value.isfinite().all() for value in resumed.model.state_dict().values())


def deferred(monkeypatch, **options) -> Trainer:
    """A fit that reads its losses every third step, as on a GPU every fiftieth."""
    made = trainer(**options)
    monkeypatch.setattr(made.losses, "each_step", False)
    monkeypatch.setattr("adcore.training.step_losses.STEPS", 3)
    monkeypatch.setattr("adcore.training.step_losses.SECONDS", 1000)
    torch.manual_seed(1)
    return made


@pytest.mark.parametrize("plan", [Plan(epochs=3), Plan(max_steps=7, accumulate=2, monitor_gradients=True)])
def test_losses_that_are_read_now_and_then_are_those_of_each_step(plan, tmp_path, monkeypatch) -> None:
    each, summary = run(plan=plan)
    seen = StopAt()
    made = deferred(
        monkeypatch, plan=plan.model_copy(update={"checkpoint_seconds": 0}), folder=tmp_path, callbacks=[seen]
    )
    again = made.run()
    assert (again.history, again.losses) == (summary.history, summary.losses)
    assert set(seen.rates) == {step for step in range(1, again.steps + 1) if step % 3 == 0 or step % 4 == 0} | {
        again.steps
    }
    first, second = each.model.state_dict(), made.model.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_fit_that_reads_losses_now_and_then_resumes_to_the_last_bit(tmp_path, monkeypatch) -> None:
    plan = Plan(epochs=3, checkpoint_seconds=0)
    whole, summary = run(plan=plan)
    with pytest.raises(KeyboardInterrupt):
        deferred(monkeypatch, plan=plan, folder=tmp_path, callbacks=[StopAt(6)]).run()
    resumed = deferred(monkeypatch, plan=plan, folder=tmp_path)
    again = resumed.run(resume=True)
    assert (again.history, again.losses) == (summary.history, summary.losses)
    first, second = whole.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_nan_loss_that_is_read_later_names_its_own_step_and_images(tmp_path, monkeypatch) -> None:
    model = Toy()
    model.nan_at = 3
    made = deferred(monkeypatch, model=model, plan=Plan(epochs=3, checkpoint_seconds=0), folder=tmp_path)
    with pytest.raises(TrainingError, match=r"nan at step 3 on tiny_6\.png, tiny_7\.png; .*last\.safetensors"):
        made.run()
    resumed = trainer(folder=tmp_path)
    resumed.run(resume=True)
    assert all(value.isfinite().all() for value in resumed.model.state_dict().values())


def test_waiting_for_images_is_counted_and_said(tmp_path, monkeypatch) -> None:
    from adcore.training import trainer as module

    clock = iter(range(1000))
    monkeypatch.setattr(module.time, "perf_counter", lambda: float(next(clock)))
    log = DetailLog(tmp_path / "log")
    _, summary = run(plan=Plan(epochs=1), callbacks=[log])
    log.close()
    assert summary.data_seconds == 4  # a second for each batch
    assert "% of the time waiting for images)" in (tmp_path / "log").read_text()


def test_weights_that_are_not_finite_never_replace_a_good_checkpoint(tmp_path) -> None:
    made, _ = run(folder=tmp_path)
    before = (tmp_path / "last.safetensors").read_bytes()
    made.model.judge.weight.data.fill_(math.nan)
    made._save_last()
    assert (tmp_path / "last.safetensors").read_bytes() == before


@pytest.mark.parametrize(("max_steps", "images"), [(None, 8), (3, 6), (9, 8)])
def test_one_pass_on_a_cpu_is_image_by_image_and_its_steps_still_count_batches(max_steps, images) -> None:
    model, plan = Gatherer(), Plan(epochs=5, batch_size=2, max_steps=max_steps)
    Trainer(model, plan, Splitting(tiny_batches(8, (16, 16), 2)), 8).run()
    assert model.sizes == [1] * images
    model = Gatherer()
    Trainer(model, plan, ResumableBatches(tiny_batches(8, (16, 16), 2)), 8).run()  # a loader that cannot
    assert model.sizes == [2] * (images // 2)


def test_one_pass_models_see_their_own_plan_in_every_hook() -> None:
    class Curious(Gatherer):
        def on_fit_start(self, fit):
            self.seen = fit.plan

    model = Curious()
    Trainer(model, Plan(epochs=5, batch_size=2), Splitting(tiny_batches(8, (16, 16), 2)), 8).run()
    assert (model.seen.epochs, model.seen.batch_size, model.seen.total_steps) == (1, 1, 8)


def test_a_trained_model_without_optimizers_is_named() -> None:
    class Empty(Toy):
        def configure_optimizers(self, plan):
            return {}

    with pytest.raises(TrainingError, match="Empty.configure_optimizers gives no optimizer"):
        run(model=Empty())


def test_max_steps_ends_the_fit_whatever_the_epochs() -> None:
    assert run(plan=Plan(epochs=100, max_steps=6))[1].steps == 6


class Scripted:
    """A validation that gives one AUROC after the other."""

    def __init__(self, *values):
        self.values = list(values)

    def __call__(self, model):
        assert model.fitted
        return self.values.pop(0)


@pytest.mark.parametrize(
    ("options", "values", "epochs", "best", "words"),
    [
        ({"patience": 2}, (0.5, 0.7, 0.6, 0.7, 0.9), 4, 2, "did not improve on 0.7 in 2"),
        ({"patience": 1, "min_delta": 0.05}, (0.5, 0.7, 0.74, 0.9), 3, 2, "did not improve"),
        ({"target": 0.8}, (0.5, 0.8, 0.9), 2, 2, "reached the target"),
    ],
)
def test_early_stopping_keeps_the_best_weights(tmp_path, options, values, epochs, best, words) -> None:
    plan = Plan(epochs=9, monitor="val_image_auroc", **options)
    made, summary = run(plan=plan, folder=tmp_path, val_loader=list, validate=Scripted(*values))
    assert summary.epochs == epochs
    assert words in summary.stop_reason
    assert made.model.seen == 8 * best  # images seen when the weights were the best


def test_a_best_within_an_accumulation_is_saved(tmp_path) -> None:
    plan = Plan(epochs=1, accumulate=4, monitor="val_image_auroc", validate_every_steps=1)
    made, _ = run(plan=plan, folder=tmp_path, val_loader=list, validate=Scripted(0.5, 0.6, 0.9, 0.7))
    assert load_file(tmp_path / "best.safetensors")["seen"] == 6  # images seen at the third validation
    assert made.model.seen == 6


def test_saving_the_best_does_not_delay_the_checkpoint_for_a_resume(tmp_path, monkeypatch) -> None:
    now, saved = [0.0], []
    monkeypatch.setattr("adcore.training.trainer.time.monotonic", lambda: now[0])

    class Clock(Callback):
        def on_step_end(self, trainer, logs):
            now[0] += 10
            if trainer.last.is_file():
                saved.append(trainer.fit.step)

    plan = Plan(
        epochs=3, accumulate=2, checkpoint_seconds=30, monitor="val_image_auroc", validate_every_steps=1, max_steps=9
    )
    values = [0.1 * i for i in range(1, 10)]  # every one is the best so far
    run(plan=plan, folder=tmp_path, callbacks=[Clock()], val_loader=list, validate=Scripted(*values))
    assert saved[0] == 5  # due after step 3, and done at the next optimizer step


def test_a_validation_that_is_not_a_number_stops_the_fit() -> None:
    with pytest.raises(TrainingError, match="val_image_auroc became nan at step 4"):
        run(plan=Plan(monitor="val_image_auroc"), val_loader=list, validate=Scripted(math.nan))


def test_what_hooks_log_is_seen_and_recorded_apart_from_the_losses(tmp_path) -> None:
    class Talking(Toy):
        def on_fit_start(self, fit):
            fit.log("prepared", 1)

        def on_epoch_end(self, fit):
            fit.log("spread", fit.epoch / 4)

        def on_fit_end(self, fit):
            fit.log("quantile", math.inf)

    class Listen(Callback):
        def on_log(self, trainer, key, value):
            heard.append((trainer.fit.step, key, value))

    heard: list[tuple[int, str, float]] = []
    detail, bar = DetailLog(tmp_path / "training_detail.log"), ProgressBar()
    board = TensorBoardLogs(tmp_path / "tensorboard_logs")
    _, summary = run(plan=Plan(epochs=2), model=Talking(), callbacks=[Listen(), detail, bar, board])
    for callback in (detail, bar, board):
        callback.close()
    assert heard == [(0, "prepared", 1), (4, "spread", 0.25), (8, "spread", 0.5), (8, "quantile", math.inf)]
    assert summary.logged == [
        {"step": 0, "prepared": 1}, {"step": 4, "spread": 0.25}, {"step": 8, "spread": 0.5}, {"step": 8, "quantile": None}
    ]  # fmt: skip
    assert not {"prepared", "spread", "quantile"} & summary.losses.keys()
    text = (tmp_path / "training_detail.log").read_text()
    assert "step 0 prepared 1" in text
    assert "step 4 spread 0.25" in text
    assert "spread 0.25" in bar.progress.tasks[0].fields["info"]
    events = b"".join(file.read_bytes() for file in (tmp_path / "tensorboard_logs").iterdir())
    assert b"log/spread" in events


def test_what_was_logged_before_a_kill_is_in_the_record_of_the_resumed_fit(tmp_path) -> None:
    class Talking(Toy):
        def on_epoch_end(self, fit):
            fit.log("spread", fit.epoch)

    with pytest.raises(KeyboardInterrupt):
        run(folder=tmp_path, model=Talking(), callbacks=[StopAt(6)])
    summary = trainer(folder=tmp_path, model=Talking()).run(resume=True)
    assert summary.logged == [{"step": 4, "spread": 1}, {"step": 8, "spread": 2}, {"step": 12, "spread": 3}]


def test_a_checkpoint_of_another_version_is_refused_by_name(tmp_path, monkeypatch) -> None:
    with monkeypatch.context() as before:
        before.setattr("adcore.training.checkpoint._FORMAT", 1)
        run(folder=tmp_path)
    with pytest.raises(ArtifactError, match=r"last\.safetensors was written by another version of adcore"):
        trainer(folder=tmp_path).run(resume=True)


def test_no_value_is_read_before_its_backward_pass(monkeypatch) -> None:
    events = []

    class Observed(Toy):
        def training_step(self, batch, step):
            events.clear()
            for update in super().training_step(batch, step):
                update.loss.register_hook(lambda gradient: events.append("backward"))
                yield update

    def reading(method):
        original = getattr(torch.Tensor, method)
        return lambda tensor, *more: (events.append("read"), original(tensor, *more))[1]

    for method in ("__float__", "__bool__", "__int__", "item", "tolist"):
        monkeypatch.setattr(torch.Tensor, method, reading(method))
    run(plan=Plan(max_steps=1), model=Observed())
    assert events[0] == "backward"
    assert events.count("backward") == 2
    assert "read" in events


def test_validation_loss_leaves_the_fit_as_it_is(tmp_path) -> None:
    validation = tiny_batches(2, (16, 16), 1, seed=5)
    watched, summary = run(plan=Plan(epochs=3, monitor="val_loss"), val_loader=lambda: validation)
    alone, _ = run(plan=Plan(epochs=3))
    losses = [entry["val_loss"] for entry in summary.history if "val_loss" in entry]
    assert len(losses) == 3
    assert losses[2] < losses[0]
    same = {key: value for key, value in watched.model.state_dict().items() if key != "seen"}
    assert all(torch.equal(value, alone.model.state_dict()[key]) for key, value in same.items())


def test_monitoring_without_validation_images_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs validation images"):
        trainer(Plan(monitor="val_loss"))


def test_accumulated_batches_equal_one_large_batch() -> None:
    class Plain(Toy):
        def __init__(self):
            super().__init__()
            self.coder = torch.nn.Conv2d(3, 4, 1)

        def configure_optimizers(self, plan):
            return {"main": plan.optimization(self.parameters(), "sgd", learning_rate=0.1)}

        def training_step(self, batch, step):
            yield Update((self.judge(self.coder(batch.images)) - batch.images).square().mean())

    small = Trainer(Plain(), Plan(accumulate=4), tiny_batches(8, (16, 16), 2), 8)
    large = Trainer(Plain(), Plan(), tiny_batches(8, (16, 16), 8), 8)
    small.run(), large.run()
    for ours, theirs in zip(small.model.parameters(), large.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_gradients_are_clipped_and_watched() -> None:
    norms = []

    class Watch(Callback):
        def on_step_end(self, trainer, logs):
            assert logs["grad/nan_count"] == 0
            norms.append(max(float(p.grad.norm()) for p in trainer.model.judge.parameters()))

    _, summary = run(plan=Plan(clip_norm=1e-3, monitor_gradients=True), callbacks=[Watch()])
    assert summary.losses["grad/total_norm"] > 1e-3  # the norm before clipping
    assert max(norms) <= 1e-3 * 1.01


def test_mixed_precision_without_the_instructions_is_refused_not_ignored(monkeypatch) -> None:
    monkeypatch.setattr("adcore.training.device.has_mixed_precision", lambda device: False)
    with pytest.raises(ConfigError, match="precision=mixed needs CUDA or a CPU with bfloat16"):
        trainer(Plan(precision="mixed"))


def test_mixed_precision_learns_about_the_same_and_resumes_to_the_last_bit(tmp_path, monkeypatch) -> None:
    """Also on a CPU without bfloat16 instructions, which is slower."""
    monkeypatch.setattr("adcore.training.device.has_mixed_precision", lambda device: True)
    plan = Plan(epochs=3, checkpoint_seconds=0, precision="mixed")
    mixed, summary = run(plan=plan)
    _, expected = run()
    assert summary.losses["loss"] == pytest.approx(expected.losses["loss"], rel=0.02)
    assert summary.losses["loss"] != expected.losses["loss"]  # it did compute in half precision
    assert all(p.dtype == torch.float32 for p in mixed.model.parameters())
    with pytest.raises(KeyboardInterrupt):
        run(plan=plan, folder=tmp_path, callbacks=[StopAt(5)])
    resumed = trainer(plan=plan, folder=tmp_path)
    resumed.run(resume=True)
    assert all(torch.equal(p, q) for p, q in zip(mixed.model.parameters(), resumed.model.parameters(), strict=True))


@pytest.mark.parametrize(
    ("config", "rates"),
    [
        ({"type": "steplr", "step_size": 2, "gamma": 0.5}, [1.0, 1.0, 0.5, 0.5, 0.25]),
        ({"type": "cosine", "T_max": 4, "eta_min": 0.2}, [1.0, 0.8828427, 0.6, 0.3171573, 0.2]),
    ],
)
def test_schedules_from_configuration(config, rates) -> None:
    optimization = Plan(scheduler=config).optimization([torch.nn.Parameter(torch.zeros(1))], learning_rate=1.0)
    seen = []
    for _ in rates:
        seen.append(optimization.optimizer.param_groups[0]["lr"])
        optimization.optimizer.step()
        optimization.scheduler.step()
    assert seen == pytest.approx(rates)


def test_warm_up_then_cosine() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = WarmupCosineLR(optimizer, total_steps=12, warmup_steps=4, final_ratio=0.1)
    seen = []
    for _ in range(13):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert seen[:5] == pytest.approx([0.0, 0.5, 1.0, 1.5, 2.0])
    assert seen[8] == pytest.approx(2.0 * 0.55)
    assert seen[12] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (Plan(optimizer="adma"), "unknown optimizer 'adma'; valid ones: adam"),
        (Plan(scheduler={"type": "steps"}), "unknown scheduler type 'steps'; valid ones: steplr"),
        (Plan(scheduler={"type": "steplr", "size": 1}), "has no option 'size'; valid ones: step_size"),
    ],
)
def test_wrong_optimizers_and_schedules_list_the_valid_ones(plan, words) -> None:
    with pytest.raises(ConfigError, match=words):
        plan.optimization([torch.nn.Parameter(torch.zeros(1))], learning_rate=1.0)


def test_another_optimizer_keeps_the_weight_decay_alone() -> None:
    plan = Plan(optimizer="adamw", learning_rate=0.5)
    made = plan.optimization(
        [torch.nn.Parameter(torch.zeros(1))], "sgd", learning_rate=1.0, momentum=0.9, weight_decay=0.1
    )
    assert type(made.optimizer).__name__ == "AdamW"
    assert (made.optimizer.defaults["lr"], made.optimizer.defaults["weight_decay"]) == (0.5, 0.1)


def test_the_logs_say_what_happened(tmp_path) -> None:
    logs = [DetailLog(tmp_path / "training_detail.log"), TensorBoardLogs(tmp_path / "tensorboard_logs")]
    run(callbacks=logs)
    for log in logs:
        log.close()
    text = (tmp_path / "training_detail.log").read_text()
    assert "12 steps" in text
    assert text.count("done, step") == 3
    assert "judge_loss" in text
    assert any((tmp_path / "tensorboard_logs").iterdir())
