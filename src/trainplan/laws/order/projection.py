"""Store vectors of length D as k numbers by a Gaussian random projection, and what that costs.

y = P u with P_ij ~ N(0, 1/k) keeps inner products to about 1/sqrt(k). The reconstruction P^T y is
unbiased and very noisy: its relative error is about sqrt(D/k), so that at a compression of 32 the
noise is 5.7 times the vector. Averages over many directions survive this; dividing element by
element, as Adam and the secant do, does not.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

from trainplan.schedules.values import count

_CACHED = 2**28
_BLOCK = 2**22


class ProjectionWarning(UserWarning):
    """Estimates are made from compressed gradients; the message states the damage."""


def project(P: Tensor, u: Tensor) -> Tensor:
    """The numbers stored: P u, ``[..., k]`` of vectors ``[..., D]``."""
    return u @ P.T


def reconstruct(P: Tensor, y: Tensor) -> Tensor:
    """The vectors made from them: P^T y, ``[..., D]``; their expectation is u."""
    return y @ P


def projection_error(size: int, k: int) -> float:
    """Root mean square of ||P^T P u - u|| / ||u||: exactly sqrt((D + 1) / k).

    >>> round(projection_error(size=1210, k=128), 2)
    3.08
    """
    return math.sqrt((count(size, "size") + 1) / count(k, "k"))


class Projection:
    """The matrix P ``[k, D]`` by its seed; made block by block, kept if it is small.

    Args:
        size: D, the length of the vectors.
        k: How many numbers are stored of each.
        seed: Of the matrix.
        dtype: Of the vectors.

    >>> P = Projection(size=1000, k=500, seed=0)
    >>> u = torch.ones(1000)
    >>> P.project(u).shape, P.reconstruct(P.project(u)).shape
    (torch.Size([500]), torch.Size([1000]))
    """

    def __init__(
        self, size: int, k: int, seed: int = 0, dtype: torch.dtype = torch.float32
    ) -> None:
        self.size, self.k, self.seed, self.dtype = count(size, "size"), count(k, "k"), seed, dtype
        self._width = max(1, _BLOCK // self.k)
        self._kept: dict[int, Tensor] = {}
        self._keeps = self.size * self.k * dtype.itemsize <= _CACHED

    def _block(self, start: int) -> Tensor:
        if start in self._kept:
            return self._kept[start]
        # torch uses 32 bits of a seed; a digest keeps blocks, seeds and other people's apart.
        digest = hashlib.sha256(f"projection {self.seed} {start}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))
        shape = self.k, min(self._width, self.size - start)
        block = torch.randn(shape, generator=generator, dtype=self.dtype) / math.sqrt(self.k)
        if self._keeps:
            self._kept[start] = block
        return block

    def project(self, u: Tensor) -> Tensor:
        """P u."""
        y = torch.zeros(self.k, dtype=self.dtype)
        for start in range(0, self.size, self._width):
            y += project(self._block(start), u[start : start + self._width])
        return y

    def reconstruct(self, y: Tensor) -> Tensor:
        """P^T y."""
        starts = range(0, self.size, self._width)
        return torch.cat([reconstruct(self._block(start), y) for start in starts])

    def damage(self, u: Tensor) -> dict[str, float]:
        """What the round trip does to one vector, measured.

        Returns:
            ``relative error``; ``signs kept``, the share of the non-zero elements whose sign
            survives (0.5 is chance); and ``cosine`` between the vector and its reconstruction.
        """
        back = self.reconstruct(self.project(u))
        alive = u != 0
        return {
            "relative error": float((back - u).norm() / u.norm()),
            "signs kept": float((back.sign() == u.sign())[alive].double().mean()),
            "cosine": float(torch.dot(back, u) / (back.norm() * u.norm())),
        }
