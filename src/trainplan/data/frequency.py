"""Show images at their low spatial frequencies only, on a smaller grid.

Networks learn low frequencies first, so that early epochs need no others: keeping the lowest ones
makes the images smaller, and every step cheaper, without the aliasing of plain resizing. Wang et
al., 2023, "EfficientTrain: Exploring Generalized Curriculum Learning for Training Visual
Backbones", arXiv 2211.09703. `trainplan.data.bandwidth` says how much to keep when.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainplan.errors import PlanError, nearest
from trainplan.schedules.base import Schedule
from trainplan.schedules.values import count

_LOBES = 3
"""Lanczos' kernel reaches so many pixels of the smaller image to each side."""


def low_frequency_crop(images: Tensor, bandwidth: int) -> Tensor:
    """Keep the lowest frequencies of images, and with them ``bandwidth`` pixels a side.

    With w = floor(bandwidth / 2) these are the frequencies -w to w - 1 of both axes; values keep
    their scale, since the spectrum is multiplied by the share of the pixels that are kept. A wave
    at the new highest frequency, w, comes back at half its amplitude.

    Args:
        images: (..., S, S) floating point, square. Half precision is computed in float32.
        bandwidth: At least 2; an odd one counts as the even one below it.

    Returns:
        (..., 2 w, 2 w), of the same type; the images themselves if they have no more pixels.

    Raises:
        PlanError: If the images are not square or not floating point.

    >>> low_frequency_crop(torch.full((1, 3, 8, 8), 2.0), 4)[0, 0, 0]
    tensor([2., 2., 2., 2.])
    """
    size = _side(images)
    w = count(bandwidth, "bandwidth", least=2) // 2
    if 2 * w >= size:
        return images
    wide = images.to(torch.promote_types(images.dtype, torch.float32))
    # Axis by axis, so that what the first cut away is not transformed along the second.
    rows = _lowest(torch.fft.fft(wide, dim=-1), w, -1)
    kept = _lowest(torch.fft.fft(rows, dim=-2), w, -2)
    cropped: Tensor = torch.fft.ifft2(kept).real * (2 * w / size) ** 2
    return cropped.to(images.dtype)


def _lowest(spectrum: Tensor, w: int, dim: int) -> Tensor:
    """Frequencies 0 to w - 1 and -w to -1, in the order in which an FFT has them."""
    size = spectrum.shape[dim]
    return torch.cat([spectrum.narrow(dim, 0, w), spectrum.narrow(dim, size - w, w)], dim)


def lanczos_resize(images: Tensor, size: int) -> Tensor:
    """Make images smaller with Lanczos' kernel, as EfficientTrain++ does (2024, arXiv 2405.08768).

    It is not quite as sharp a filter as `low_frequency_crop`, and takes any size. It equals the
    resizing of PIL.

    Args:
        images: (..., S, S) floating point, square.
        size: Pixels a side of the result; images that have no more are returned as they are.

    >>> lanczos_resize(torch.full((1, 3, 8, 8), 2.0), 3).shape
    torch.Size([1, 3, 3, 3])
    """
    side, wanted = _side(images), count(size, "size")
    if wanted >= side:
        return images
    wide = images.to(torch.promote_types(images.dtype, torch.float32))
    weights = torch.from_numpy(_lanczos_weights(side, wanted)).to(wide)
    with torch.autocast(images.device.type, enabled=False):  # which would multiply in half
        return (weights @ wide @ weights.T).to(images.dtype)


def _lanczos_weights(side: int, size: int) -> np.ndarray:
    """(size, side) share of each old pixel in each new one."""
    scale = side / size
    centres = (np.arange(size) + 0.5) * scale
    x = (np.arange(side) + 0.5 - centres[:, None]) / scale
    weights = np.where(np.abs(x) < _LOBES, np.sinc(x) * np.sinc(x / _LOBES), 0.0)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


_METHODS = {"fourier": low_frequency_crop, "lanczos": lanczos_resize}


class LowFrequencyCrop(torch.nn.Module):
    """`low_frequency_crop` as a module without parameters, for a batch on its device.

    Put it after normalization and augmentation, and before batches are mixed: boxes that are
    pasted in would get blurred edges. It runs where the batch is used, so that a bandwidth that
    follows a schedule is never late, however far a loader reads ahead.

    Args:
        bandwidth: Pixels a side to keep, or a schedule of it (``plan["bandwidth"]``).
        method: ``fourier``, or ``lanczos`` as in EfficientTrain++.

    Raises:
        PlanError: If the schedule needs a horizon, or the method is unknown.

    >>> import trainplan as tp
    >>> stages = tp.data.bandwidth_stages(10, (4, 6, 8))
    >>> crop = LowFrequencyCrop(tp.Plan(10, "epochs", bandwidth=stages.bandwidth)["bandwidth"])
    >>> images = torch.ones(1, 3, 8, 8)
    >>> [tuple(crop(images, epoch).shape[2:]) for epoch in (0, 5, 9)]
    [(4, 4), (6, 6), (8, 8)]
    """

    def __init__(self, bandwidth: int | Schedule, method: str = "fourier") -> None:
        super().__init__()
        if method not in _METHODS:
            raise PlanError(
                "unknown", place="method", value=method, remedy=nearest(method, _METHODS)
            )
        if not isinstance(bandwidth, Schedule):
            count(bandwidth, "bandwidth", least=2)
        elif bandwidth.needs_horizon:
            raise PlanError(
                "the schedule of the bandwidth needs a horizon",
                place="bandwidth",
                value=bandwidth,
                remedy="Give plan['bandwidth']",
            )
        self.bandwidth = bandwidth
        self.method = method

    def forward(self, images: Tensor, t: float | None = None) -> Tensor:
        """Crop a batch.

        Args:
            images: (N, C, S, S).
            t: The plan's time, such as completed steps; needed if the bandwidth is a schedule.
        """
        bandwidth: Any = self.bandwidth
        if isinstance(bandwidth, Schedule):
            if t is None:
                raise PlanError(
                    "the bandwidth follows a schedule",
                    place="t",
                    value=t,
                    remedy="Say when: crop(images, step)",
                )
            bandwidth = bandwidth(t)
        return _METHODS[self.method](images, int(bandwidth))

    def extra_repr(self) -> str:
        """What stands between the brackets when it is printed."""
        return f"{self.bandwidth!r}, method={self.method!r}"


def _side(images: Tensor) -> int:
    if images.ndim < 2 or images.shape[-1] != images.shape[-2]:
        raise PlanError(
            "images must be square",
            place="images",
            value=tuple(images.shape),
            remedy="Crop or resize them to (..., S, S) first",
        )
    if not images.is_floating_point():
        raise PlanError(
            "images must be floating point",
            place="images",
            value=images.dtype,
            remedy="Normalize them first",
        )
    return int(images.shape[-1])
