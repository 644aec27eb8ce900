"""The power-kernel sums with their derivatives, for fits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainplan.laws.kernel import kernel
from trainplan.laws.readers.raw import Floats
from trainplan.laws.views import View


@dataclass(frozen=True, eq=False)
class Sums:
    """A power-kernel sum and what its derivatives are made of.

    Attributes:
        share: ``1 - (1 + c_k x)^-beta`` of each change at each point, 0 before it; (n, m).
        total: The weighted sum; (n,).
        by_beta: Its derivative by beta; (n,).
        by_log_speed: Its derivative by log of each ``c_k``; (n, m).
    """

    share: Floats
    total: Floats
    by_beta: Floats
    by_log_speed: Floats


def power_slopes(view: View, weights: Floats, speed: Floats, origin: Floats, beta: float) -> Sums:
    """The sum of `kernel.response`, directly, with its derivatives."""
    grown = np.maximum(view.area[:, None] - origin[None, :], 0.0)
    seen = view.start[None, :] <= view.at[:, None]
    with np.errstate(invalid="ignore", over="ignore"):
        product = np.where(grown > 0, speed[None, :] * grown, 0.0)
        logs = np.log1p(product)
        left = kernel(grown, speed[None, :], beta)
        by_beta = np.where(seen & np.isfinite(logs), logs * left, 0.0)
        ratio = np.where(np.isfinite(product), product / (1.0 + product), 1.0)
        by_speed = np.where(seen, beta * left * ratio, 0.0)
    share = np.where(seen, 1.0 - left, 0.0)
    return Sums(share, share @ weights, by_beta @ weights, by_speed * weights[None, :])
