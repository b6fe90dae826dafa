"""Principal components of a stream of feature vectors, exact, in memory that does not grow with its length."""

from __future__ import annotations

import torch
from adcore.errors import TrainingError
from adcore.training.processes import Processes
from torch import Tensor

BLOCK, COLUMNS = 256, 64  # vectors, and dimensions of all vectors, worked on at once in double precision


class StreamingPCA:
    """PCA of up to D vectors from the vectors themselves, of more from running moments (D x D, double precision).

    `add` takes (B, D) floating-point batches; `components` ends the stream. `expected` is how many vectors will come, and
    `room` how many numbers may be kept although moments would do: both decide what is allocated, not what is computed.
    Raises TrainingError for fewer than 2 vectors, for equal ones, and for NaN or infinity.
    """

    def __init__(self, expected: int, room: int = 0) -> None:
        self.expected, self.room, self.count, self._filled = expected, room, 0, 0
        self._waiting: Tensor | None = None  # (capacity, D)
        self._products: Tensor | None = None  # sums over the folded vectors: (D, D), and of themselves: (D,)

    def add(self, features: Tensor) -> None:
        """Take in (B, D)."""
        if self._waiting is None:
            d = features.shape[1]
            keep = self.expected <= max(d, self.room // d)
            self._waiting = features.new_empty(self.expected if keep else BLOCK, d)
            self._shift = features[0].double()  # sums of differences to it keep their digits
            self._sum = torch.zeros_like(self._shift)
        rest = features
        while len(rest):
            if self._filled == len(self._waiting):
                self._fold()
            part = rest[: len(self._waiting) - self._filled]
            self._waiting[self._filled : self._filled + len(part)] = part
            self._filled, rest = self._filled + len(part), rest[len(part) :]
        self.count += len(features)

    @property
    def kept(self) -> Tensor | None:
        """All vectors (n, D) as long as none was folded into the moments, else None."""
        return self._waiting[: self._filled] if self._products is None else None

    def _fold(self) -> None:
        """Empty the waiting vectors into the running sums."""
        if self._products is None:
            d = len(self._shift)
            self._products = self._shift.new_zeros(d, d)
        for part in self._waiting[: self._filled].split(BLOCK):
            difference = part.double() - self._shift
            self._sum += difference.sum(0)
            self._products.addmm_(difference.t(), difference)
        self._filled = 0

    def merge(self, processes: Processes) -> None:
        """Bring the vectors of all processes together in the first one, or their moments where there is no room for them.

        `expected` must be the number of all of them.
        """
        if len(self._waiting) >= self.expected:
            self._filled = self.count = processes.collect(self._waiting, self._filled)
            return
        self._fold()
        shift = processes.copied(self._shift)
        offset = self._shift - shift
        crossed = torch.outer(self._sum, offset)
        self._products += crossed + crossed.t() + self.count * torch.outer(offset, offset)
        processes.add(self._products)
        processes.add(self._sum.add_(offset, alpha=self.count))
        self._shift, self.count = shift, int(processes.add(torch.tensor(self.count)))

    def components(self, keep: float, overwrite: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Mean (D,), variances (k,) falling, unbiased, and orthonormal directions (k, D) of the first k components.

        `keep` below 1 is the part of the variance that k must exceed; from 1 on it is the largest k. No component
        without variance is returned. All are double precision but the directions, which have the features' type. Where
        they come from kept vectors, `overwrite` lets them take their place in memory.
        """
        if self.count < 2:
            raise TrainingError(f"principal components need at least 2 normal images, got {self.count}")
        moments = self._products is not None or self.count > len(self._shift)
        mean, variances, vectors = self._from_moments() if moments else self._from_vectors()
        variances, order = variances.clamp(min=0).sort(descending=True)
        rank = int((variances > 1e-12 * variances[0]).sum())
        if rank == 0:
            raise TrainingError("all training images have the same features; give at least 2 different normal images")
        share = variances.cumsum(0) / variances.sum()
        k = min(rank, int((share <= keep).sum()) + 1 if keep < 1 else int(keep))
        variances, vectors = variances[:k], vectors[:, order[:k]]
        if moments:
            return mean, variances, vectors.t().to(self._waiting.dtype)
        vectors *= (variances * (self.count - 1)).rsqrt()
        directions = self._waiting[:k] if overwrite else self._waiting.new_empty(k, len(mean))
        for columns in self._columns():
            centred = self._waiting[: self._filled, columns].double().sub_(mean[columns])
            directions[:, columns] = (vectors.t() @ centred).to(directions.dtype)
        return mean, variances, directions

    def _columns(self) -> list[slice]:
        return [slice(i, i + COLUMNS) for i in range(0, len(self._shift), COLUMNS)]

    def _from_vectors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, and the eigenvalues and vectors (n, n) of the vectors' inner products: cheaper up to n = D."""
        features, n = self._waiting[: self._filled], self._filled
        mean = torch.empty_like(self._shift)
        gram = mean.new_zeros(n, n)
        for columns in self._columns():
            part = features[:, columns].double()
            mean[columns] = part.mean(0)
            part -= mean[columns]
            gram.addmm_(part, part.t())
        return mean, *_eigenvectors(gram.div_(n - 1))

    def _from_moments(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, and the eigenvalues and vectors (D, D) of the covariance."""
        self._fold()
        offset = self._sum / self.count
        self._products.addr_(offset, offset, alpha=-self.count).div_(self.count - 1)
        return self._shift + offset, *_eigenvectors(self._products)


def _eigenvectors(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (n,) and eigenvectors as columns (n, n)."""
    if not matrix.diagonal().isfinite().all():
        raise TrainingError(
            "the features hold NaN or infinite values; check the training images and the backbone weights"
        )
    return torch.linalg.eigh(matrix)
