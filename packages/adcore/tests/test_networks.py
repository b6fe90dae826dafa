"""How the networks of a fit run: with channels last, with cuDNN's tuning, and compiled."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from adcore.errors import ConfigError, TrainingError
from adcore.model import AnomalyModel, Prediction, Update
from adcore.testing import tiny_batches
from adcore.training.device import half_precision
from adcore.training.networks import fast_networks
from adcore.training.plan import Plan
from adcore.training.stepping import Stepper
from adcore.training.trainer import Trainer


class Network(torch.nn.Module):
    """A convolution that gives its weight a shape in the first step, and remembers how it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.scale = torch.nn.Parameter(torch.ones(1, 1))
        self.plain: list[bool] = []  # of each call that Python runs: whether torch.compile is not at work

    def forward(self, x):
        if self.scale.shape != x.shape[2:]:
            self.scale.data = torch.ones(x.shape[2:])
        if not torch.compiler.is_compiling():
            self.plain.append(True)
        return self.conv(x) * self.scale


class Toy(AnomalyModel):
    """Networks in a list and alone, and the memory layout that each step saw."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.parts = torch.nn.ModuleList([Network()])
        self.last = torch.nn.Conv2d(4, 3, 1)
        self.layouts: list[tuple[bool, bool]] = []

    def configure_optimizers(self, plan):
        return {"main": plan.optimization(self.parameters(), "sgd", learning_rate=0.1)}

    def training_step(self, batch, step):
        tensors = batch.images, self.parts[0].conv.weight
        self.layouts.append(tuple(t.is_contiguous(memory_format=torch.channels_last) for t in tensors))
        yield Update((self.last(self.parts[0](batch.images)) - batch.images).square().mean())

    def forward(self, images):
        maps = (self.last(self.parts[0](images)) - images).abs().mean(1)
        return Prediction(maps.flatten(1).amax(1), maps)


def fit(kind: type[Toy] = Toy, **settings) -> tuple[Toy, float]:
    model = kind()
    trainer = Trainer(model, Plan(epochs=2, batch_size=2, **settings), tiny_batches(4, (16, 16), 2), 4)
    return model, trainer.run().losses["loss"]


@pytest.fixture
def no_code_generation(monkeypatch) -> None:
    """torch.compile traces, but generates no code, which takes a minute."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))


def test_channels_last_is_the_layout_of_steps_alone_and_changes_rounding_only() -> None:
    plain, expected = fit()
    model, loss = fit(channels_last=True)
    assert plain.layouts == [(False, False)] * 4
    assert model.layouts == [(True, True)] * 4
    assert all(p.is_contiguous() for p in model.parameters())
    assert loss == pytest.approx(expected, rel=1e-5)


def test_networks_are_compiled_from_the_second_step_on_and_plain_afterwards(no_code_generation) -> None:
    plain, expected = fit()
    model, loss = fit(compile=True)
    assert len(plain.parts[0].plain) == 4
    assert len(model.parts[0].plain) == 1
    assert "forward" not in vars(model.parts[0])
    assert "forward" not in vars(model.last)
    assert loss == pytest.approx(expected, rel=1e-5)
    model(torch.rand(1, 3, 16, 16))
    assert len(model.parts[0].plain) == 2


def test_a_network_with_two_names_is_compiled_once(no_code_generation) -> None:
    class Named(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.parts.append(self.last)

    model, loss = fit(Named, compile=True)
    assert "forward" not in vars(model.last)
    assert loss == pytest.approx(fit(Named)[1], rel=1e-5)


@pytest.mark.slow
def test_compiled_code_learns_the_same() -> None:
    assert fit(compile=True)[1] == pytest.approx(fit()[1], rel=1e-5)


def test_a_network_that_cannot_be_compiled_is_named(monkeypatch) -> None:
    def broken(forward):
        def fail(*_):
            raise RuntimeError("no code for this\nmany lines")

        return fail

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(
        TrainingError, match=r"torch.compile fails in 'parts.0' \(no code for this\); use compile=false"
    ):
        fit(compile=True)


def test_an_error_of_the_network_itself_is_not_the_compilers(no_code_generation, monkeypatch) -> None:
    calls = []

    def forward(self, x):
        calls.append(1)
        if len(calls) > 2:
            raise ValueError("too bright")
        return self.conv(x) * self.scale

    monkeypatch.setattr(Network, "forward", forward)
    with pytest.raises(ValueError, match="too bright"):
        fit(compile=True)


def test_a_machine_without_a_compiler_refuses_to_compile(monkeypatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match="compile=true needs a C\\+\\+ compiler"):
        fit(compile=True)


def test_half_precision_is_not_compiled_on_a_cpu(monkeypatch) -> None:
    monkeypatch.setattr("adcore.training.device.has_mixed_precision", lambda device: True)
    with pytest.raises(ConfigError, match="use compile=false, or precision=float32"):
        fit(compile=True, precision="mixed")


@pytest.mark.parametrize("deterministic", [False, True])
def test_cudnn_tunes_itself_in_a_fit_on_a_gpu_unless_results_must_repeat(monkeypatch, deterministic) -> None:
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: deterministic)
    running = SimpleNamespace(device=torch.device("cuda"), plan=Plan())
    with fast_networks(Toy(), running):
        assert torch.backends.cudnn.benchmark is not deterministic
    assert not torch.backends.cudnn.benchmark


@pytest.mark.parametrize(("has_bfloat16", "dtype"), [(True, torch.bfloat16), (False, torch.float16)])
def test_mixed_precision_on_a_gpu_is_bfloat16_where_it_has_it(monkeypatch, has_bfloat16, dtype) -> None:
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bfloat16)
    assert half_precision(torch.device("cuda")) == dtype
    assert half_precision(torch.device("cpu")) == torch.bfloat16


def test_a_fit_goes_on_on_a_gpu_that_scales_losses_where_the_other_did_not() -> None:
    bfloat16 = Stepper({}, Plan(precision="mixed"), torch.device("cpu"))
    scaled = Stepper({}, Plan(precision="mixed"), torch.device("cpu"))
    scaled.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    stored = scaled.state()
    scaled.load_state(bfloat16.state())
    assert scaled.scaler.get_scale() == 8
    bfloat16.load_state(stored)
    assert bfloat16.scaler.get_scale() == 1
