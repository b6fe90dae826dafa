"""What the tests of adm-flow share."""

from collections.abc import Callable

import pytest
import torch
from adcore.model import Batch
from adcore.testing import tiny_batches
from torch import Tensor


@pytest.fixture
def log_det() -> Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]:
    """log |det dy/dx| (B,) of a function that treats each sample by itself, from autograd's full Jacobian."""

    def measure(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        sizes = []
        for sample in x:
            jacobian = torch.autograd.functional.jacobian(lambda s: function(s[None]).flatten(), sample)
            sizes.append(torch.linalg.slogdet(jacobian.reshape(sample.numel(), -1))[1])
        return torch.stack(sizes)

    return measure


@pytest.fixture
def randomise() -> Callable[[torch.nn.Module], torch.nn.Module]:
    """Move every parameter off its initial value, so that no test passes because a weight is still 0 or 1."""

    def move(module: torch.nn.Module) -> torch.nn.Module:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
        return module

    return move


@pytest.fixture
def tiny_batch() -> Batch:
    """Two images of 64 pixels, one of them with a defect."""
    return tiny_batches(2, (64, 64), batch_size=2, anomalous=True, seed=3)[0]
