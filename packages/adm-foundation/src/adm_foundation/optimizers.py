"""StableAdamW: AdamW whose step shrinks where the gradient has outgrown its running statistics."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class StableAdamW(Optimizer):
    """AdamW with AdaFactor's update clipping: each tensor's rate is divided by max(1, RMS(g / sqrt(v)) / clip_threshold).

    Wortsman et al., Stable and Low-Precision Training for Large-Scale Vision-Language Models, NeurIPS 2023.
    `amsgrad` keeps the largest second moment seen so far. Takes dense gradients.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        clip_threshold: float = 1.0,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "amsgrad": amsgrad,
                "clip_threshold": clip_threshold,
            },
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One update of all parameters that have a gradient; returns the closure's loss, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    _update(parameter, self.state[parameter], group)
        return loss


def _update(parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    if not state:
        state["step"] = 0
        state["exp_avg"] = torch.zeros_like(parameter)  # m
        state["exp_avg_sq"] = torch.zeros_like(parameter)  # v
        if group["amsgrad"]:
            state["max_exp_avg_sq"] = torch.zeros_like(parameter)
    beta1, beta2 = group["betas"]
    gradient, mean, square = parameter.grad, state["exp_avg"], state["exp_avg_sq"]
    state["step"] += 1
    correction1, correction2 = 1 - beta1 ** state["step"], 1 - beta2 ** state["step"]

    parameter.mul_(1 - group["lr"] * group["weight_decay"])
    mean.lerp_(gradient, 1 - beta1)
    square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    if group["amsgrad"]:
        square = torch.maximum(state["max_exp_avg_sq"], square, out=state["max_exp_avg_sq"])
    scale = square.sqrt().div_(math.sqrt(correction2)).add_(group["eps"])
    rms = torch.linalg.vector_norm(gradient / scale) / math.sqrt(gradient.numel())
    damping = (rms / group["clip_threshold"]).clamp(
        min=1
    )  # stays on the device, which would have to wait for its value
    parameter.addcdiv_(mean, scale.mul_(damping), value=-group["lr"] / correction1)
