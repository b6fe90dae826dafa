"""Lower bounds of distances to a memory bank, from one matrix product each: the exact one, a short one, and one in bfloat16."""

from __future__ import annotations

import torch
from adcore.training.device import has_mixed_precision
from torch import Tensor

SLACK = 1e-5  # largest relative rounding error of a float32 product, with a margin
# bfloat16 moves a number by at most 2^-9 of itself: each factor of a product, and the sum that comes out
HALF_SLACK = 3 * 2**-9 + 2**-16

AXES = (30, 62, 94, 126)  # numbers of axes to choose from; two columns come on top: multiples of 16 are quickest
SAMPLE, PROBES = 4096, 64  # entries that the axes are fitted to, and that try how many of them cost least
HARDER = 1.3  # squared distance of a query to its nearest entry, to that of an entry to its nearest other
PAIR_COST, PAIR_DIMS = 64, 256  # a true distance costs as much as 64 (D + 256) terms of a product (about, on CPUs)
HALF_COST, HALF_DIMS = 1 / 6, 64  # a bfloat16 product and its three more passes, beside terms of a float32 product


class FullBound:
    """All dimensions in the bank's own precision: exact but for rounding.

    Entries x (M, D) with their |x|^2 `norms` (M,) become columns, and columns that are never near fill the last of `groups`.
    """

    def __init__(self, x: Tensor, norms: Tensor, groups: int) -> None:
        self.table = _columns(x, groups)  # (D, M')
        self.halves = _columns(norms[:, None] * (1 - SLACK) / 2, groups, fill=torch.inf)[0]  # |b|^2 / 2: (M',)
        self.width = len(self.halves)

    def buffers(self, x: Tensor, rows: int) -> list[Tensor]:
        """Room for the bounds of `rows` queries, to be made once: fresh memory costs more than products."""
        return [x.new_empty(rows, self.width)]

    def __call__(self, x: Tensor, norms: Tensor, buffers: list[Tensor]) -> Tensor:
        """At most (|x - b|^2 - |x|^2) / 2 for queries x (Q, D) with |x|^2 `norms` (Q,): (Q, M'), in the first buffer."""
        return torch.mm(-x, self.table, out=buffers[0][: len(x)]).add_(self.halves)  # a row more would cost more


class ShortBound(FullBound):
    """Few coordinates along orthonormal axes (D, d), and one for the norm of what they leave out.

    A distance never grows by an orthonormal projection P, and with r = |x - Px| for what P leaves out
    |q - b|^2 >= |Pq - Pb|^2 + (r_q - r_b)^2 = |q|^2 + |b|^2 - 2 (Pq.Pb + r_q r_b).
    """

    def __init__(self, x: Tensor, norms: Tensor, groups: int, axes: Tensor) -> None:
        super().__init__(shorten(x, norms, axes), norms, groups)
        self.axes = axes
        self.table = torch.cat([self.table, self.halves[None]])  # (d + 2, M'): to a short product a row more is nothing

    def __call__(self, x: Tensor, norms: Tensor, buffers: list[Tensor]) -> Tensor:
        x = torch.cat([-shorten(x, norms, self.axes), torch.ones_like(norms)[:, None]], 1)
        return torch.mm(x, self.table, out=buffers[0][: len(x)])


class HalfBound(FullBound):
    """All dimensions in bfloat16: several times as quick as float32 on CPUs with instructions for it.

    The product of two vectors is wrong by at most HALF_SLACK of the product of their norms.
    """

    def __init__(self, x: Tensor, norms: Tensor, groups: int) -> None:
        super().__init__(x.bfloat16(), norms, groups)
        reach = _columns(norms.sqrt()[:, None] * HALF_SLACK, groups)[0]
        self.margins = torch.stack([self.halves, reach])  # (2, M')

    def buffers(self, x: Tensor, rows: int) -> list[Tensor]:
        return [*super().buffers(x, rows), x.new_empty(rows, self.width, dtype=torch.bfloat16)]

    def __call__(self, x: Tensor, norms: Tensor, buffers: list[Tensor]) -> Tensor:
        bounds, products = (buffer[: len(x)] for buffer in buffers)
        torch.mm(x.bfloat16(), self.table, out=products)
        weights = torch.stack([torch.ones_like(norms), -norms.sqrt() * (1 + SLACK)], 1)  # (Q, 2)
        return torch.addmm(bounds.copy_(products), weights, self.margins, beta=-1, out=bounds)


def shorten(x: Tensor, norms: Tensor, axes: Tensor) -> Tensor:
    """Coordinates along the axes, and the norm of the rest, rounded up: (N, D), |x|^2 (N,), (D, d) -> (N, d + 1)."""
    leading = x @ axes
    rest = (norms * (1 + SLACK) - leading.square().sum(1)).clamp_(min=0).sqrt_()
    return torch.cat([leading, rest[:, None]], 1)


def cheapest_bound(centered: Tensor, norms: Tensor, groups: int) -> FullBound:
    """The bound that makes a search among the entries `centered` (M, D) cheapest; `norms` |b|^2 (M,).

    A few entries search for their nearest other, and what counts is how many of the others a bound leaves to look at. The
    short bound takes the leading principal axes. Everything follows from the bank and the device alone.
    """
    if centered.device.type != "cpu":
        return FullBound(centered, norms, groups)
    size, dims = centered.shape
    probes = torch.arange(0, size, -(-size // PROBES))

    def squared(x: Tensor) -> Tensor:
        """Between probes and entries, as the coordinates `x` have it; a probe is not its own neighbour."""
        between = norms[probes, None] + norms - 2 * x[probes] @ x.t()
        return between.scatter_(1, probes[:, None], torch.inf)

    def search(left: Tensor) -> float:
        return left.sum().item() / len(probes) * PAIR_COST * (dims + PAIR_DIMS)

    true = squared(centered)
    nearest = true.amin(1, keepdim=True)
    cost = {"full": size * dims}
    if has_mixed_precision(centered.device):
        lengths = norms.sqrt()
        left = true.addr_(lengths[probes], lengths, alpha=-4 * HALF_SLACK) <= nearest  # 2 |q| |b|, wrong by twice that
        cost["half"] = size * (dims * HALF_COST + HALF_DIMS) + search(left)
    choices = [d for d in AXES if 2 * d <= min(size, dims)]
    if choices:
        with torch.random.fork_rng(devices=[]):  # pca_lowrank draws; its axes are orthonormal, and any such axes bound
            torch.default_generator.manual_seed(0)
            axes = torch.pca_lowrank(centered[:: -(-size // SAMPLE)], choices[-1], center=False)[2]
    for d in choices:
        cost[d] = size * d + search(squared(shorten(centered, norms, axes[:, :d])) <= HARDER * nearest)
    best = min(cost, key=cost.get)
    if isinstance(best, int):
        return ShortBound(centered, norms, groups, axes[:, :best].contiguous())
    return {"full": FullBound, "half": HalfBound}[best](centered, norms, groups)


def _columns(x: Tensor, groups: int, fill: float = 0.0) -> Tensor:
    """x (M, D) as columns (D, M'), with columns of `fill` up to whole groups."""
    table = x.new_full((x.shape[1], -(-len(x) // groups) * groups), fill)
    table[:, : len(x)] = x.t()
    return table
