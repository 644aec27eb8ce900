"""The directions that finished tasks need, and the part of a gradient that avoids them.

Cheng et al., 2025, "Continuous Subspace Optimization for Continual Learning", arXiv 2505.11816.
With M the orthonormal directions of earlier tasks, a gradient G becomes G' = G - M (M^T G). When
a task ends, the leading directions of its own gradients join M: as many as hold less than a
threshold of their energy.
"""

from __future__ import annotations

import torch
from torch import Tensor

_DRIFT = 1e-4


def kept_directions(values: Tensor, threshold: float) -> int:
    """How many leading directions are kept: those with which the energy is below the threshold.

    k = #{i : sum_{j <= i} s_j^2 / sum s^2 < threshold}. The direction that crosses the threshold
    is left out, so k may be 0; as it is when all values are 0.

    Args:
        values: (k,) singular values s, falling.
        threshold: A share of the energy, in [0, 1].

    >>> [kept_directions(torch.tensor([5.0, 2.0, 1.0]), share) for share in (0.5, 0.9, 0.98)]
    [0, 1, 2]
    """
    energy = values.double().square().cumsum(0)
    if not len(energy) or energy[-1] <= 0:
        return 0
    return int((energy / energy[-1] < threshold).sum())


class HistoricalSubspace:
    """Directions (m, q) with orthonormal columns that nothing may move along any more.

    Args:
        basis: (m, q), or ``None`` before the first task has ended.

    >>> past = HistoricalSubspace()
    >>> past.extend(torch.eye(3), torch.tensor([5.0, 2.0, 1.0]), threshold=0.9)
    1
    >>> past.project(torch.ones(3, 1)).T
    tensor([[0., 1., 1.]])
    """

    def __init__(self, basis: Tensor | None = None) -> None:
        self.basis = basis

    @property
    def dimension(self) -> int:
        """How many directions are taken."""
        return 0 if self.basis is None else self.basis.shape[1]

    def project(self, matrix: Tensor) -> Tensor:
        """The part of a matrix (m, n) that is orthogonal to all directions; itself if none are."""
        if self.basis is None or not self.dimension:
            return matrix
        basis = self.basis
        return torch.addmm(matrix, basis, basis.T @ matrix, alpha=-1)

    def extend(self, directions: Tensor, values: Tensor, threshold: float) -> int:
        """Take the leading directions of a finished task; returns how many.

        Args:
            directions: (m, k) orthonormal columns, orthogonal to those that are taken.
            values: (k,) singular values, falling.
            threshold: See `kept_directions`.
        """
        kept = kept_directions(values, threshold)
        if kept:
            new = directions[:, :kept]
            joined = new.clone() if self.basis is None else torch.cat([self.basis, new], dim=1)
            if drift(joined) > _DRIFT:
                joined = torch.linalg.qr(joined).Q
            self.basis = joined.contiguous()
        return kept


def drift(basis: Tensor) -> float:
    """How far columns are from orthonormal: the largest entry of |M^T M - I|."""
    gram = basis.T @ basis
    return float((gram - torch.eye(len(gram), dtype=gram.dtype, device=gram.device)).abs().max())
