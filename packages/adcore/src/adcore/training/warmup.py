"""Linear warm-up followed by a cosine decay, as a torch scheduler."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class WarmupCosineLR(LRScheduler):
    """From 0 to the optimizer's rate in `warmup_steps`, then along a half cosine to `final_ratio` of it at `total_steps`."""

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        warmup_steps: int = 0,
        final_ratio: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        self.total_steps, self.warmup_steps, self.final_ratio = total_steps, warmup_steps, final_ratio
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The rate of each parameter group at the present step."""
        step = self.last_epoch
        if step < self.warmup_steps:
            factor = step / self.warmup_steps
        else:
            done = min(1.0, (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps))
            factor = self.final_ratio + (1 - self.final_ratio) * 0.5 * (1 + math.cos(math.pi * done))
        return [base * factor for base in self.base_lrs]
