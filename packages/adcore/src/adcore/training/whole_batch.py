"""Batch normalisation and dropout as one process would do them, where several share a batch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from adcore.training.processes import Processes, Share


def whole_batch(processes: Processes, share: Share | None) -> AbstractContextManager[Any]:
    """Inside, what a model computes with its share of a batch is that of the whole one.

    torch's SyncBatchNorm works on CUDA alone; this does the same on any device, and for layers that derive from BatchNorm.
    """
    return _WholeBatch(processes, share) if share else nullcontext()


class _WholeBatch(TorchFunctionMode):
    def __init__(self, processes: Processes, share: Share) -> None:
        super().__init__()
        self.processes, self.share = processes, share

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.batch_norm:
            return self._batch_norm(*args, **kwargs)
        if func is F.dropout:
            return self._dropout(*args, **kwargs)
        return func(*args, **kwargs)

    def _batch_norm(
        self,
        x: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        """As F.batch_norm, with mean and variance of the images of all processes."""
        if not training:
            return F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
        dims, shape = [0, *range(2, x.dim())], [1, -1, *[1] * (x.dim() - 2)]
        single = x.to(torch.promote_types(x.dtype, torch.float32))  # half precision has too few digits for sums
        var, mean = torch.var_mean(single, dims, correction=0)
        count = x.numel() // x.shape[1]
        total = self.processes.add(mean.new_tensor(count, dtype=torch.double)).item()
        part = count / total
        whole_mean = self.add(part * mean)
        whole_var = self.add(part * (var + (mean - whole_mean).square()))
        if running_mean is not None:
            with torch.no_grad():
                running_mean.lerp_(whole_mean.to(running_mean), momentum)
                running_var.lerp_((whole_var * (total / max(total - 1, 1))).to(running_var), momentum)
        scale = (whole_var + eps).rsqrt()
        scale = scale if weight is None else scale * weight
        shift = -whole_mean * scale if bias is None else bias - whole_mean * scale
        return torch.addcmul(shift.view(shape), single, scale.view(shape)).to(x.dtype)

    def _dropout(self, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        """As F.dropout; the mask is drawn for the whole batch, so that it does not depend on the number of processes."""
        rows, rest = divmod(len(x), self.share.count)
        if not training or rest:
            return F.dropout(x, p, training, inplace)
        like = torch.ones(1, dtype=x.dtype, device=x.device).expand(rows * self.share.total, *x.shape[1:])
        mask = F.dropout(like.contiguous(), p)[rows * self.share.start :][: len(x)]
        return x.mul_(mask) if inplace else x * mask

    def add(self, x: Tensor) -> Tensor:
        """The sum over all processes, through which gradients flow."""
        return _Sum.apply(x, self.processes)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, processes: Processes) -> Tensor:
        ctx.processes = processes
        return processes.add(x.clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.processes.add(gradient.clone()), None
