"""Exact nearest neighbours in a memory bank: a cheap lower bound first, true distances only for what it cannot rule out."""

from __future__ import annotations

from functools import cached_property

import torch
from adcore.errors import ConfigError, DataError
from adcore.memory import available_memory
from torch import Tensor, nn

from adm_memory.bounds import PAIR_COST, SAMPLE, SLACK, FullBound, cheapest_bound

GROUPS = range(448, 641, 16)  # entries i with equal i mod groups form a group, ruled out together by its smallest bound
CPU_BOUNDS, GPU_BOUNDS = 2**22, 2**26  # bounds held at a time
CPU_ROWS = 160  # most queries at a time on a CPU: there products run quickest
GATHERED = 2**17  # numbers gathered at a time for true distances
WIDE = 4  # bytes of a number that is searched
STREAMED = 2**26  # bytes of a bank that are searched at a time where it does not fit into memory
MOST_TIES = 64  # where more entries than that are equal but for rounding, float64 decides between them


def search_structure(bank: Tensor) -> NearestNeighbours | StreamedNeighbours:
    """Searches `bank` (M, D) in memory; on a CPU in blocks, where it would take more than half of what is free."""
    if bank.device.type == "cpu" and bank.numel() * WIDE > available_memory() // 2:
        return StreamedNeighbours(bank)
    return NearestNeighbours(bank)


class NearestNeighbours:
    """Exact Euclidean nearest neighbours in `bank` (M, D) floating point; of a bank in half precision, in single precision.

    One product bounds all distances from below (see `bounds`), and few entries are left to be looked at.
    It takes the memory of the bank at most once more, and once again when a query comes that its bound does not suit.
    """

    def __init__(self, bank: Tensor, once: bool = False) -> None:
        """`once`: for one search; then it takes no time to find the cheapest bound."""
        if bank.ndim != 2 or len(bank) == 0:
            raise ConfigError(f"a bank is (M, D) with at least one entry, got {tuple(bank.shape)}")
        self.bank = bank.detach()  # true distances are taken from it as it is
        wide = torch.promote_types(bank.dtype, torch.float32)
        self.center = self.bank.mean(0, dtype=wide)  # about it norms are small, and so is the rounding of products
        self.groups = min(GROUPS, key=lambda groups: -len(bank) % groups)  # the least padding
        self.bound = (FullBound if once else cheapest_bound)(*self._centered(), self.groups)

    def _centered(self) -> tuple[Tensor, Tensor]:
        """Entries (M, D) about the center, and their |b|^2 (M,)."""
        centered = self.bank - self.center
        return centered, centered.square().sum(1)

    @cached_property
    def full(self) -> FullBound:
        """For queries that the bound does not suit."""
        return self.bound if type(self.bound) is FullBound else FullBound(*self._centered(), self.groups)

    @torch.no_grad()
    def query(self, queries: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
        """Distances and indices of the `k` nearest entries of each query, nearest first: (Q, D) -> (Q, k), (Q, k) int64.

        Of equal entries the first comes first, unless there are dozens. No query's result depends on the others.
        Raises ConfigError where the bank has fewer than `k` entries or another D.
        """
        _check(self.bank, queries, k)
        width = self.bound.width
        if queries.device.type == "cpu":
            rows = max(1, min(CPU_ROWS, CPU_BOUNDS // width))
            rows = -(-len(queries) // max(1, -(-len(queries) // rows))) or 1  # all chunks alike
        else:
            rows = max(1, GPU_BOUNDS // width)
        buffers = self.bound.buffers(queries, min(rows, len(queries)))
        distances, indices = queries.new_empty(len(queries), k), queries.new_empty(len(queries), k, dtype=torch.int64)
        for i in range(0, len(queries), rows):
            part = slice(i, i + rows)
            distances[part], indices[part] = self._search(queries[part], k, self.bound, buffers)
        return distances, indices

    def _search(self, queries: Tensor, k: int, bound: FullBound, buffers: list[Tensor]) -> tuple[Tensor, Tensor]:
        """`query` for as many queries as the `buffers` of `bound` have room for."""
        x = queries - self.center
        norms = x.square().sum(1)  # |q|^2: (Q,)
        bounds = bound(x, norms, buffers)  # of (|q - b|^2 - |q|^2) / 2: (Q, M')
        groups = self.groups if k <= self.groups else bound.width
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
        exact = type(bound) is FullBound
        most = max(2 * k, MOST_TIES if exact else len(self.bank) // PAIR_COST)
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
        if crowded.any():  # last, for it uses the buffers again
            again = queries[crowded]
            result = self._in_double(again, k) if exact else self._search(again, k, self.full, buffers)
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


class StreamedNeighbours:
    """The same neighbours as NearestNeighbours finds, bit for bit, in a `bank` (M, D) that need not fit into memory.

    It may lie in a file that is mapped: each query reads it once, and no more than a few blocks of it are in memory.
    """

    def __init__(self, bank: Tensor, rows: int | None = None) -> None:
        self.bank, self.rows = bank.detach(), rows or max(1, STREAMED // (WIDE * bank.shape[1]))

    @torch.no_grad()
    def query(self, queries: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
        """As NearestNeighbours.query."""
        _check(self.bank, queries, k)
        distances = queries.new_empty(len(queries), 0)
        indices = torch.empty(len(queries), 0, dtype=torch.int64)
        for start in range(0, len(self.bank), self.rows):
            block = self.bank[start : start + self.rows]
            near, found = NearestNeighbours(block, once=True).query(queries, min(k, len(block)))
            distances, order = torch.cat([distances, near], 1).sort(dim=1, stable=True)  # of equals the first
            distances, indices = distances[:, :k], torch.cat([indices, found + start], 1).gather(1, order[:, :k])
        return distances.contiguous(), indices


def _check(bank: Tensor, queries: Tensor, k: int) -> None:
    size, dims = bank.shape
    if not 1 <= k <= size:
        raise ConfigError(f"cannot find {k} neighbours in a bank of {size}; ask for 1 to {size}")
    if queries.ndim != 2 or queries.shape[1] != dims:
        raise ConfigError(f"queries must be (Q, {dims}) like the bank, got {tuple(queries.shape)}")


def _sorted(distances: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest first, and of equally near entries the first: (Q, k), (Q, k) -> the same."""
    indices, order = indices.sort(1)
    distances, order = distances.gather(1, order).sort(dim=1, stable=True)
    return distances, indices.gather(1, order)


class DenseNeighbours(nn.Module):
    """Squared distances to all entries of `bank` (M, D) by one product, for graphs of other runtimes."""

    def __init__(self, bank: Tensor) -> None:
        super().__init__()
        bank = bank.float()
        center = bank.mean(0)  # about it norms are small, and so is the rounding of the product
        entries = bank - center
        self.register_buffer("center", center)
        self.register_buffer("table", -2 * entries.t().contiguous())  # (D, M)
        self.register_buffer("norms", entries.square().sum(1))  # |b|^2: (M,)

    def forward(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """|b|^2 - 2 q.b, which lacks |q|^2 and so orders the entries of a query: (Q, D) -> (Q, M); and |q|^2 (Q, 1)."""
        queries = queries - self.center
        return torch.addmm(self.norms, queries, self.table), queries.square().sum(1, keepdim=True)
