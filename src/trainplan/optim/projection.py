"""Random projections that are redrawn from a seed instead of being stored.

A gradient of shape (m, n) is read with its *channels* first: rows if m >= n, columns otherwise, so
that its projection runs over the shorter side and has the shape (channels, rank).
"""

from __future__ import annotations

import torch
from torch import Tensor

_LARGEST_SEED = 2**63 - 1
_DRAWS = 15


def channels_first(matrix: Tensor) -> Tensor:
    """A view with at least as many rows as columns; kernels (out, in, ...) count as (out, rest).

    >>> channels_first(torch.zeros(2, 6)).shape, channels_first(torch.zeros(9, 2, 2, 2)).shape
    (torch.Size([6, 2]), torch.Size([9, 8]))
    """
    flat = matrix.flatten(1)
    return flat if flat.shape[0] >= flat.shape[1] else flat.T


def next_seed(seed: int) -> int:
    """The seed after this one: the last of 15 draws of a generator that begins with it.

    >>> next_seed(1)
    505211975917066638
    """
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(0, _LARGEST_SEED, (_DRAWS,), generator=generator)
    return int(draws[-1])


def gaussian_projection(
    seed: int,
    shape: tuple[int, int],
    rank: int,
    *,
    device: torch.device | str = "cpu",
) -> Tensor:
    """A matrix of independent normal numbers of variance 1 / rank, in float32.

    It is drawn on the device, and differs between kinds of devices.

    Args:
        seed: At least 0 and below 2^63.
        shape: Of the matrix.
        rank: The dimension that is projected to.
        device: Where to draw.
    """
    generator = torch.Generator(device=device).manual_seed(seed)
    return torch.randn(shape, generator=generator, device=device).div_(rank**0.5)


def projection_for(
    seed: int, rows: int, columns: int, rank: int, device: torch.device | str
) -> Tensor:
    """The projection of a (rows, columns) matrix: (shorter side, rank).

    It is drawn as (rank, columns) where rows are the channels and as (rows, rank) where columns
    are, in the order of the published code.
    """
    if rows >= columns:
        drawn = gaussian_projection(seed, (rank, columns), rank, device=device)
        return drawn.T.contiguous()  # products with it are faster by more than this copy costs
    return gaussian_projection(seed, (rows, rank), rank, device=device)


def singular_projection(channels: Tensor, rank: int) -> Tensor:
    """The leading right singular vectors (shorter side, rank) of a gradient, channels first."""
    right: Tensor = torch.linalg.svd(channels.float(), full_matrices=False)[2]
    return right[:rank].T.contiguous()
