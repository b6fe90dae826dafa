"""StableAdamW: AdamW as long as the gradients are what they were, smaller steps when they suddenly grow."""

import math

import pytest
import torch
from adcore.training.plan import Plan
from adm_foundation.optimizers import StableAdamW


def run(kind, gradients, **options):
    parameter = torch.nn.Parameter(torch.linspace(-1, 1, 12).reshape(3, 4))
    optimizer = kind([parameter], lr=0.01, weight_decay=0.1, **options)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    return parameter.detach()


@pytest.mark.parametrize("amsgrad", [False, True])
def test_equals_adamw_without_clipping(amsgrad):
    gradients = (
        torch.randn(6, 3, 4, generator=torch.Generator().manual_seed(0))
        * torch.tensor([1, 2, 9, 1, 0.1, 3])[:, None, None]
    )
    ours = run(StableAdamW, gradients, amsgrad=amsgrad, clip_threshold=math.inf)
    torch.testing.assert_close(ours, run(torch.optim.AdamW, gradients, amsgrad=amsgrad))


def test_step_shrinks_by_the_rms_of_the_surprising_gradient():
    """One step by the formula: gradients of 1 for long, then of 10."""
    gradients = [torch.ones(3, 4)] * 50 + [torch.full((3, 4), 10.0)]
    before, after = (run(StableAdamW, gradients[:n], betas=(0.9, 0.99)) for n in (50, 51))
    beta1, beta2, t = 0.9, 0.99, 51
    m = beta1 * (1 - beta1**50) + (1 - beta1) * 10
    v = beta2 * (1 - beta2**50) + (1 - beta2) * 100
    scale = math.sqrt(v / (1 - beta2**t)) + 1e-8
    rms = 10 / scale
    assert rms > 3, "the case must be one where the rate is cut"
    expected = before * (1 - 0.01 * 0.1) - 0.01 / rms * (m / (1 - beta1**t)) / scale
    torch.testing.assert_close(after, expected, rtol=1e-5, atol=1e-6)


def test_state_resumes_exactly():
    gradients = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))

    def fresh():
        parameter = torch.nn.Parameter(torch.zeros(5))
        return parameter, StableAdamW([parameter], amsgrad=True)

    def advance(parameter, optimizer, part):
        for gradient in part:
            parameter.grad = gradient.clone()
            optimizer.step()

    whole, optimizer = fresh()
    advance(whole, optimizer, gradients)
    first, optimizer = fresh()
    advance(first, optimizer, gradients[:3])
    second, resumed = fresh()
    second.data.copy_(first.data)
    resumed.load_state_dict(optimizer.state_dict())
    advance(second, resumed, gradients[3:])
    assert torch.equal(second, whole)


def test_plan_overrides_reach_it():
    parameter = torch.nn.Parameter(torch.zeros(2))
    built = Plan(learning_rate=0.5, weight_decay=0.25).optimization([parameter], StableAdamW, learning_rate=1.0)
    assert isinstance(built.optimizer, StableAdamW)
    assert (built.optimizer.defaults["lr"], built.optimizer.defaults["weight_decay"]) == (0.5, 0.25)
    other = Plan(optimizer="sgd").optimization([parameter], StableAdamW, learning_rate=1.0, amsgrad=True)
    assert isinstance(other.optimizer, torch.optim.SGD)
