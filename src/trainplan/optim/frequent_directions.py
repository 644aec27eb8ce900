"""Frequent Directions: the leading directions of a stream of matrices, in a sketch of fixed size.

Liberty, 2013, "Simple and Deterministic Matrix Sketching", arXiv 1206.0594, as continual learning
uses it in Cheng et al., 2025, arXiv 2505.11816. A sketch holds r directions U and their values s.
A matrix G joins it by its own leading directions, both shrunken by the value that no longer fits::

    shrink(s)_i = sqrt(max(s_i^2 - s_{r+1}^2, 0))           for the r largest
    U_G, s_G    = shrink(svd(G))
    U, s       <- shrink(svd([decay * U diag(s), U_G diag(s_G)]))
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainplan.schedules.values import count, finite

_OVERSAMPLED = 8
_PASSES = 2


class FrequentDirections:
    """A sketch of the column spaces of matrices (m, any), with at most ``rank`` directions.

    For all that was added with a decay of 1, the energy of any direction in the sketch is at most
    its energy in the matrices together, and short of it by no more than the sum of what was cut.

    Args:
        rank: The most directions kept; below m, or nothing is ever cut.
        decay: The sketch is multiplied by it before another matrix joins.
        directions: (m, k) orthonormal columns of a sketch to go on from.
        values: (k,) of theirs, falling.

    >>> sketch = FrequentDirections(rank=2)
    >>> sketch.add(torch.diag(torch.tensor([5.0, 3.0, 0.0])))
    >>> sketch.add(torch.diag(torch.tensor([0.0, 4.0, 1.0])))
    >>> [round(value, 3) for value in sketch.values.square().tolist()]
    [24.0, 24.0]
    """

    def __init__(
        self,
        rank: int,
        decay: float = 1.0,
        directions: Tensor | None = None,
        values: Tensor | None = None,
    ) -> None:
        self.rank = count(rank, "FrequentDirections: rank")
        self.decay = finite(decay, "FrequentDirections: decay")
        self.directions, self.values = directions, values

    def add(self, matrix: Tensor) -> None:
        """Let the columns of a matrix (m, any) join."""
        self.add_svd(*left_singular(matrix))

    def add_svd(self, directions: Tensor, values: Tensor) -> None:
        """Let a matrix join by its left singular vectors (m, k) and values (k,), k > rank."""
        directions, values = shrink(directions, values, self.rank)
        if self.directions is not None and self.values is not None:
            old = self.directions * (self.decay * self.values)
            both = torch.cat([old, directions * values], dim=1)
            directions, values = shrink(*left_singular(both), self.rank)
        self.directions, self.values = directions.contiguous(), values


def shrink(directions: Tensor, values: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The ``rank`` leading directions, their values shrunken by the first that is left out."""
    kept = values[:rank].square()
    if len(values) > rank:
        kept = (kept - values[rank].square()).clamp_min(0)
    return directions[:, :rank], kept.sqrt()


def left_singular(matrix: Tensor, most: int | None = None) -> tuple[Tensor, Tensor]:
    """Left singular vectors (m, k) and values (k,), k the shorter side.

    Args:
        matrix: (m, n), float32 or float64.
        most: How many are needed. If given, they are found by random projection (Halko et al.,
            2011, arXiv 0909.4061) with a fixed seed, a few more than needed.
    """
    if most is None or most + _OVERSAMPLED >= min(matrix.shape):
        vectors, values, _ = torch.linalg.svd(matrix, full_matrices=False)
        return vectors, values
    # Not torch.svd_lowrank, which draws from the global generator of the run.
    random = torch.Generator(matrix.device).manual_seed(0)
    shape = (matrix.shape[1], most + _OVERSAMPLED)
    drawn = torch.randn(shape, generator=random, dtype=matrix.dtype, device=matrix.device)
    basis = torch.linalg.qr(matrix @ drawn).Q
    for _ in range(_PASSES):
        basis = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.T @ basis).Q).Q
    vectors, values, _ = torch.linalg.svd(basis.T @ matrix, full_matrices=False)
    return basis @ vectors, values
