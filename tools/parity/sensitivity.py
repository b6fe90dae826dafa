"""Measures how far rounding moves what the parity tests compare after training: tests/parity/golden/sensitivity.json.

    hatch run python tools/parity/sensitivity.py                             (all, half an hour)
    hatch run python tools/parity/sensitivity.py tests/parity/test_fre.py    (of one model)

A processor that adds in another order differs in the last place, and training amplifies that: Adam's first steps are the
signs of gradients. The amplification belongs to the computation, and ours is the peer's, so it is measured with our models:
every number of the training images, and every parameter when training first uses it, is moved by one unit in the last
place, up or down at random, and the tests of tests/parity run so. Stored is the largest movement of each tensor, relative to
the stored one (maps: to their range), for losses that of each step. Movements vary much between perturbations, as a ReLU or
a sign flips or does not, so numbers only grow from run to run; delete the file to begin anew.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

import pytest
import torch

TESTS = Path(__file__).parents[2] / "tests" / "parity"
REPEATS = 3


class Observer:
    """Plugin of pytest that perturbs training with seed `seed` (0: not) and keeps what the tests would compare."""

    __name__ = "parity-observer"  # pytest registers it by this name

    def __init__(self, seed: int) -> None:
        self.seed, self.generator = seed, torch.Generator().manual_seed(seed)
        self.seen: dict[str, dict[str, torch.Tensor]] = defaultdict(dict)
        self.moved: set[int] | None = None  # parameters; None: no training has begun in this test

    def neighbours(self, values: torch.Tensor) -> torch.Tensor:
        """Every number moved to the one above or below."""
        up = torch.rand(values.shape, generator=self.generator) < 0.5
        return torch.nextafter(values, torch.where(up, torch.inf, -torch.inf).to(values))

    def perturb(self, images: torch.Tensor) -> torch.Tensor:
        """Training images as a test gets them; what it trains from then on is perturbed too."""
        if not self.seed:
            return images
        self.moved = set() if self.moved is None else self.moved
        return self.neighbours(images)

    def before_forward(self, module: torch.nn.Module, _: tuple) -> None:
        """Hook of every module: perturb its own parameters the first time that training uses it."""
        if self.moved is not None:
            for parameter in module.parameters(recurse=False):
                if parameter.is_floating_point() and id(parameter) not in self.moved:
                    self.moved.add(id(parameter))
                    parameter.data.copy_(self.neighbours(parameter.data))

    def pytest_runtest_teardown(self) -> None:
        self.moved = None

    def see(self, name: str, key: str, difference: torch.Tensor) -> None:
        """Keep the relative difference from the stored tensor `key` of golden file `name`."""
        if "loss" in key or key.endswith("_after"):
            self.seen[name][key] = difference


def observe(seed: int, tests: list[str]) -> dict[str, dict[str, torch.Tensor]]:
    """One run of the parity tests, whose comparisons are only observed."""
    observer = Observer(seed)
    hook = torch.nn.modules.module.register_module_forward_pre_hook(observer.before_forward)
    code = pytest.main(["-q", "-n0", "-m", "", *(tests or [str(TESTS)])], plugins=[observer])
    hook.remove()
    if code:
        sys.exit(f"the parity tests failed under observation (exit status {int(code)})")
    return observer.seen


def movement(key: str, change: torch.Tensor) -> float | list[float]:
    """The largest number of `change`, of losses that of each step; two digits."""
    change = change.abs()
    largest = change.reshape(len(change), -1).amax(1) if "loss" in key else change.max()
    return [float(f"{value:.2g}") for value in largest] if largest.ndim else float(f"{largest:.2g}")


def larger(one: float | list[float], other: float | list[float]) -> float | list[float]:
    """The larger of two movements, step by step."""
    return [max(pair) for pair in zip(one, other, strict=True)] if isinstance(one, list) else max(one, other)


def main(tests: list[str]) -> None:
    torch.set_num_threads(1)
    file = TESTS / "golden" / "sensitivity.json"
    stored = json.loads(file.read_text(encoding="utf-8"))["movements"] if file.is_file() else {}
    first = torch.seed() % 2**32  # other perturbations in every run
    plain, *others = (observe(seed, tests) for seed in (0, *range(first, first + REPEATS)))
    for name, tensors in plain.items():
        known = stored.setdefault(name, {})
        for key, value in tensors.items():
            for other in others:
                moved = movement(key, other[name][key] - value)
                known[key] = larger(moved, known.get(key, moved))
    what = "largest movements by one unit in the last place of training images and parameters (tools/parity/sensitivity.py)"
    text = json.dumps({"what": what, "movements": stored}, indent=1, sort_keys=True)
    file.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
