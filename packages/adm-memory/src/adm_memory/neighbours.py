"""Exact nearest neighbours in a memory bank: a cheap lower bound first, true distances only for what it cannot rule out."""

from __future__ import annotations

import torch
from adcore.errors import ConfigError, DataError
from torch import Tensor

GROUPS = range(448, 641, 16)  # entries i with equal i mod groups form a group, ruled out together by its smallest bound
CPU_BOUNDS, GPU_BOUNDS = 2**22, 2**26  # bounds held at a time
CPU_ROWS = 160  # most queries at a time on a CPU: there products run quickest
GATHERED = 2**17  # numbers gathered at a time for true distances
SLACK = 1e-5  # largest relative rounding error of a float32 product, with a margin
MOST_TIES = 64  # where more entries than that are equal but for rounding, float64 decides between them

AXES = (30, 62, 94, 126)  # numbers of axes to choose from; two columns come on top: multiples of 16 are quickest
SAMPLE, PROBES = 4096, 64  # entries that the axes are fitted to, and that try how many of them cost least
HARDER = 1.3  # squared distance of a query to its nearest entry, to that of an entry to its nearest other
PAIR_COST, PAIR_DIMS = 64, 256  # a true distance costs as much as 64 (D + 256) terms of a product (about, on CPUs)


class NearestNeighbours:
    """Exact Euclidean nearest neighbours in `bank` (M, D) floating point.

    A distance never grows by an orthonormal projection P, and with r = |x - Px| for what P leaves out
    |q - b|^2 >= |Pq - Pb|^2 + (r_q - r_b)^2 = |q|^2 + |b|^2 - 2 (Pq.Pb + r_q r_b), so one product of short vectors bounds
    all distances from below. P takes the bank's principal axes, as many as cost least on the bank's own entries.
    Everything here follows from the bank alone. It takes the memory of the bank once more.
    """

    def __init__(self, bank: Tensor) -> None:
        if bank.ndim != 2 or len(bank) == 0:
            raise ConfigError(f"a bank is (M, D) with at least one entry, got {tuple(bank.shape)}")
        self.bank = bank.detach()  # true distances are taken from it as it is
        self.center = self.bank.mean(0)  # about it norms are small, and so is the rounding of products
        centered = self.bank - self.center
        norms = centered.square().sum(1)  # |b|^2: (M,)
        self.axes = choose_axes(centered, norms) if bank.device.type == "cpu" else None  # (D, d) or None
        self.groups = min(GROUPS, key=lambda groups: -len(bank) % groups)  # the least padding
        self.full = _table(centered, norms, self.groups)
        self.short = None
        if self.axes is not None:
            self.short = _table(_shorten(centered, norms, self.axes), norms, self.groups)

    @torch.no_grad()
    def query(self, queries: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
        """Distances and indices of the `k` nearest entries of each query, nearest first: (Q, D) -> (Q, k), (Q, k) int64.

        Of equal entries the first comes first, unless there are dozens. No query's result depends on the others.
        Raises ConfigError where the bank has fewer than `k` entries or another D.
        """
        size, dims = self.bank.shape
        if not 1 <= k <= size:
            raise ConfigError(f"cannot find {k} neighbours in a bank of {size}; ask for 1 to {size}")
        if queries.ndim != 2 or queries.shape[1] != dims:
            raise ConfigError(f"queries must be (Q, {dims}) like the bank, got {tuple(queries.shape)}")
        width = self.full.shape[1]
        if queries.device.type == "cpu":
            rows = max(1, min(CPU_ROWS, CPU_BOUNDS // width))
            rows = -(-len(queries) // max(1, -(-len(queries) // rows))) or 1  # all chunks alike
        else:
            rows = max(1, GPU_BOUNDS // width)
        buffer = queries.new_empty(min(rows, len(queries)) * width)  # made once: fresh memory costs more than products
        distances, indices = queries.new_empty(len(queries), k), queries.new_empty(len(queries), k, dtype=torch.int64)
        for i in range(0, len(queries), rows):
            part = slice(i, i + rows)
            distances[part], indices[part] = self._search(queries[part], k, self.short is not None, buffer)
        return distances, indices

    def _search(self, queries: Tensor, k: int, short: bool, buffer: Tensor) -> tuple[Tensor, Tensor]:
        """`query` for as many queries as `buffer` has room for bounds; `short` takes the bound, else the full product."""
        x = queries - self.center
        norms = x.square().sum(1)  # |q|^2: (Q,)
        table = self.short if short else self.full
        if short:
            x = _shorten(x, norms, self.axes)
        bounds = buffer[: len(x) * table.shape[1]].view(len(x), -1)  # lower bounds of (|q - b|^2 - |q|^2) / 2
        if short:
            torch.mm(torch.cat([-x, torch.ones_like(norms)[:, None]], 1), table, out=bounds)
        else:  # a row more would cost a long product more than a pass of its own
            torch.mm(-x, table[:-1], out=bounds).add_(table[-1])
        groups = self.groups if k <= self.groups else table.shape[1]
        members = bounds.view(len(x), -1, groups)  # (Q, members, groups)
        lowest = members.amin(1)  # (Q, groups); amin is a tenth of argmin

        # Any k entries bound the distance of the k-th nearest from above; these mostly are the nearest.
        each = torch.arange(len(x), device=x.device)[:, None].expand(-1, k)
        group = lowest.topk(k, largest=False).indices if k > 1 else lowest.argmin(1, keepdim=True)
        indices = members[each, :, group].argmin(2) * groups + group  # (Q, k)
        distances = self._distances(queries, each.flatten(), indices.flatten()).view(len(x), k)
        limit = (distances.amax(1).square() * (1 + SLACK) - norms * (1 - SLACK)) / 2
        if not limit.isfinite().all():
            raise DataError("features hold NaN or infinite values; check the images and the backbone weights")
        if k > 1:
            distances, indices = _sorted(distances, indices)

        query, group = (lowest <= limit[:, None]).nonzero(as_tuple=True)
        most = max(2 * k, len(self.bank) // PAIR_COST if short else MOST_TIES)
        crowded = query.bincount(minlength=len(x)) > most
        if crowded.any():
            keep = ~crowded[query]
            query, group = query[keep], group[keep]
        hit, member = (members[query, :, group] <= limit[query, None]).nonzero(as_tuple=True)
        query, entry = query[hit], member * groups + group[hit]
        more = query.bincount(minlength=len(x)) > k
        if more.any():
            pair, place = more[query], more.cumsum(0) - 1
            distances[more], indices[more] = self._nearest(queries[more], place[query[pair]], entry[pair], k)
        if crowded.any():  # last, for it uses the buffer again
            again = queries[crowded]
            result = self._search(again, k, False, buffer) if short else self._in_double(again, k)
            distances[crowded], indices[crowded] = result
        return distances, indices

    def _nearest(self, queries: Tensor, query: Tensor, entry: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The `k` of the given pairs with the smallest true distance for each query: (P,), (P,) -> (Q, k), (Q, k)."""
        order = entry.argsort()
        query, entry = query[order], entry[order]
        distances = self._distances(queries, query, entry)
        order = distances.argsort(stable=True)
        order = order[query[order].argsort(stable=True)]  # by query, then distance, then entry
        counts = query.bincount(minlength=len(queries))
        order = order[(counts.cumsum(0) - counts)[:, None] + torch.arange(k, device=order.device)]
        return distances[order], entry[order]

    def _in_double(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """`query` by a float64 product, slow but for hardly any query: (Q, D) -> (Q, k), (Q, k)."""
        center = self.center.double().cpu()  # not every device has float64
        x, bounds = queries.double().cpu() - center, []
        for part in self.bank.split(SAMPLE):
            entries = part.double().cpu() - center
            bounds.append(torch.addmm(entries.square().sum(1) / 2, x, entries.t(), alpha=-1))
        indices = torch.cat(bounds, 1).topk(k, largest=False).indices.to(queries.device)
        each = torch.arange(len(x), device=queries.device).repeat_interleave(k)
        return _sorted(self._distances(queries, each, indices.flatten()).view(-1, k), indices)

    def _distances(self, queries: Tensor, query: Tensor, entry: Tensor) -> Tensor:
        """Distances of pairs, from the difference itself: accurate however close they are."""
        step = max(1, GATHERED // queries.shape[1])
        distances = queries.new_empty(len(query))
        for i in range(0, len(query), step):  # index_select takes half the time of an index in brackets
            difference = queries.index_select(0, query[i : i + step]).sub_(
                self.bank.index_select(0, entry[i : i + step])
            )
            torch.linalg.vector_norm(difference, dim=1, out=distances[i : i + step])
        return distances


def _sorted(distances: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest first, and of equally near entries the first: (Q, k), (Q, k) -> the same."""
    indices, order = indices.sort(1)
    distances, order = distances.gather(1, order).sort(dim=1, stable=True)
    return distances, indices.gather(1, order)


def choose_axes(centered: Tensor, norms: Tensor) -> Tensor | None:
    """The leading principal axes (D, d) of `centered` (M, D) that make a search cheapest, or None for the full product.

    A few entries search for their nearest other, and what counts is how many the bound along d axes leaves to look at.
    """
    size, dims = centered.shape
    choices = [d for d in AXES if 2 * d <= min(size, dims)]
    if not choices:
        return None
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(
            0
        )  # pca_lowrank draws; its axes are orthonormal, and the bound holds for any such axes
        axes = torch.pca_lowrank(centered[:: -(-size // SAMPLE)], choices[-1], center=False)[2]
    probes = torch.arange(0, size, -(-size // PROBES), device=centered.device)

    def squared(x: Tensor) -> Tensor:
        """Between probes and entries, as the coordinates `x` have it; a probe is not its own neighbour."""
        between = norms[probes, None] + norms - 2 * x[probes] @ x.t()
        return between.scatter_(1, probes[:, None], torch.inf)

    reach = HARDER * squared(centered).amin(1, keepdim=True)
    cost = {None: size * dims}
    for d in choices:
        left = (squared(_shorten(centered, norms, axes[:, :d])) <= reach).sum().item() / len(probes)
        cost[d] = size * d + left * PAIR_COST * (dims + PAIR_DIMS)
    best = min(cost, key=cost.get)
    return best and axes[:, :best].contiguous()


def _shorten(x: Tensor, norms: Tensor, axes: Tensor) -> Tensor:
    """Coordinates along the axes, and the norm of the rest, rounded up: (N, D), |x|^2 (N,), (D, d) -> (N, d + 1)."""
    leading = x @ axes
    rest = (norms * (1 + SLACK) - leading.square().sum(1)).clamp_(min=0).sqrt_()
    return torch.cat([leading, rest[:, None]], 1)


def _table(x: Tensor, norms: Tensor, groups: int) -> Tensor:
    """[b, |b|^2/2] of all entries as columns, and columns that are never near up to whole groups: (d + 1, M')."""
    size, dims = x.shape
    table = x.new_zeros(dims + 1, -(-size // groups) * groups)
    table[:dims, :size] = x.t()
    table[dims] = torch.inf
    table[dims, :size] = norms * (1 - SLACK) / 2
    return table
