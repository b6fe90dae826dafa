"""Losses of training steps, which stay on the device until several are read at once: a GPU waits for whoever reads one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adcore.errors import TrainingError
from adcore.training.processes import Processes

STEPS, SECONDS = 50, 1.0  # between two readings on a GPU at most, the seconds in one process alone

Values = Mapping[str, float | Tensor]


@dataclass
class _Entry:
    step: int
    values: Values
    loss: str | None = None  # the one of `values` that must be finite
    paths: Sequence[str] = ()  # of its images
    weight: float | None = None  # of these values in the mean over all processes; None: all have the same values


class StepLosses:
    """What training steps log. On a CPU, or if `each_step`, it is read in each step; elsewhere now and then.

    `advice()` is added to the message of a loss that is not finite.
    """

    def __init__(
        self, device: torch.device, processes: Processes, each_step: bool, advice: Callable[[], str] = str
    ) -> None:
        self.device, self.processes, self.advice = device, processes, advice
        self.each_step = each_step or device.type == "cpu"
        self._waiting: list[_Entry] = []
        self._numbers: dict[int, dict[str, float]] = {}  # by step
        self._last = time.monotonic()

    def add_loss(self, step: int, name: str, values: Values, weight: float, paths: Sequence[str]) -> None:
        """The loss `name`, and what else an update logs, of the images `paths`. TrainingError as `read`."""
        self._waiting.append(_Entry(step, self._kept(values), name, paths, weight))
        if self.each_step:
            self._convert()  # a loss that is not finite never reaches the weights

    def add(self, step: int, values: Values) -> None:
        """What an optimizer step logs."""
        self._waiting.append(_Entry(step, self._kept(values)))

    def due(self, step: int) -> bool:
        """Whether it is time to read after so many steps; several processes agree."""
        late = not self.processes.several and time.monotonic() - self._last >= SECONDS
        return self.each_step or step % STEPS == 0 or late

    def read(self) -> list[dict[str, float]]:
        """The numbers of the steps since the last reading, in order.

        TrainingError names the first step whose loss is not finite, and its images.
        """
        self._convert()
        found, self._numbers = list(self._numbers.values()), {}
        self._last = time.monotonic()
        return found

    def _kept(self, values: Values) -> Values:
        """The values without their graphs, as they are now: a model may change its own tensors before they are read."""
        if self.each_step:
            return values
        return {key: value.detach().clone() if isinstance(value, Tensor) else value for key, value in values.items()}

    def _convert(self) -> None:
        entries, self._waiting = self._waiting, []
        values = [value for entry in entries for value in entry.values.values()]
        left = iter(self._means(entries, values).tolist() if values else ())
        for entry in entries:
            logs = {key: next(left) for key in entry.values}
            if entry.loss and not math.isfinite(logs[entry.loss]):
                images = _names(self.processes.lists(list(entry.paths)))
                what = f"the loss became {logs[entry.loss]} at step {entry.step} on {images}"
                raise TrainingError(what + self.advice())
            self._numbers.setdefault(entry.step, {}).update(logs)

    def _means(self, entries: list[_Entry], values: list[float | Tensor]) -> Tensor:
        """All values in one tensor: over all processes."""
        kind = torch.float if self.device.type == "mps" else torch.double
        numbers = torch.stack([torch.as_tensor(value, dtype=kind, device=self.device).detach() for value in values])
        if not self.processes.several:
            return numbers
        same = float(self.processes.first)
        weights = [same if entry.weight is None else entry.weight for entry in entries for _ in entry.values]
        return self.processes.add(numbers * numbers.new_tensor(weights))


def _names(paths: list[str]) -> str:
    return ", ".join(paths[:4]) + (", ..." if len(paths) > 4 else "")
