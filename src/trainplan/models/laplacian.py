"""The L1 distance of two images' Laplacian pyramids: what differs, by how coarse it is.

The loss of video interpolation, as in Zhang et al., 2024, "VFIMamba: Video Frame Interpolation with
State Space Models", arXiv 2407.02315. The last low-pass image is not compared.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from trainplan.errors import PlanError
from trainplan.schedules.values import count


def laplacian_pyramid(images: Tensor, levels: int = 5) -> list[Tensor]:
    """Band k of (B, C, H / 2^k, W / 2^k) for each level: an image less its smoothed half size.

    Args:
        images: (B, C, H, W), with H and W multiples of 2^levels and no band below 4 pixels.
        levels: Number of bands.

    Raises:
        PlanError: If the images cannot be halved so often.

    >>> [tuple(band.shape) for band in laplacian_pyramid(torch.zeros(1, 3, 16, 8), levels=2)]
    [(1, 3, 16, 8), (1, 3, 8, 4)]
    """
    parts = 1 << count(levels, "levels", most=30)
    # Reflection by two pixels needs three, and an even number of them four.
    if images.ndim != 4 or any(s % parts or s >> (levels - 1) < 4 for s in images.shape[2:]):
        raise PlanError(
            f"cannot be halved {levels} times",
            place="images",
            value=tuple(images.shape),
            remedy=f"Give (B, C, H, W) with multiples of {parts}, at least {2 * parts}, as H and W",
        )
    bands, current = [], images
    for _ in range(levels):
        halved = _blur(current)[:, :, ::2, ::2]
        spread = torch.zeros_like(current)
        spread[:, :, ::2, ::2] = halved
        bands.append(current - 4 * _blur(spread))
        current = halved
    return bands


def laplacian_distances(a: Tensor, b: Tensor, levels: int = 5) -> Tensor:
    """(levels,) mean absolute difference of two images' bands, from fine to coarse.

    Args:
        a: (B, C, H, W).
        b: The same.
        levels: Number of bands.
    """
    if a.shape != b.shape:
        shapes = (tuple(a.shape), tuple(b.shape))
        raise PlanError("the images differ in their shape", place="b", value=shapes)
    # The pyramid is linear: its bands' difference is the difference's bands.
    return torch.stack([band.abs().mean() for band in laplacian_pyramid(a - b, levels)])


def laplacian_loss(a: Tensor, b: Tensor, levels: int = 5) -> Tensor:
    """Sum over levels of mean |band of a - band of b|: see `laplacian_distances`.

    >>> image = torch.eye(8)[None, None]
    >>> laplacian_loss(image, image, levels=1).item()
    0.0
    """
    return laplacian_distances(a, b, levels).sum()


def _blur(images: Tensor) -> Tensor:
    """Every channel smoothed by the binomial kernel of 5 x 5, reflected at the border."""
    channels = images.shape[1]
    weights = images.new_tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    padded = functional.pad(images, (2, 2, 2, 2), mode="reflect")
    row = weights.expand(channels, 1, 1, 5)
    across = functional.conv2d(padded, row, groups=channels)
    return functional.conv2d(across, row.transpose(2, 3), groups=channels)
