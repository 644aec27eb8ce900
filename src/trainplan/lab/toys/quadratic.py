"""The noisy quadratic: the expected loss of SGD under any schedule, without chance.

The loss is 1/2 sum_i h_i theta_i^2; each step sees its gradient with additive noise of variance
s_i. Expected squares then follow a recursion (Zhang et al., 2019, arXiv 1907.04164)::

    E[theta_i^2] <- (1 - eta_t h_i)^2 E[theta_i^2] + eta_t^2 s_i
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from trainplan.errors import PlanError
from trainplan.schedules.base import Schedule

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class NoisyQuadratic:
    """Eigenvalues that fall as a power law, noise in proportion to them.

    Attributes:
        exponent: a in h_i = i^-a; the condition number is size^a.
        noise: nu in s_i = nu h_i.
        size: Number of directions.
        start: E[theta_i^2] before the first step, in every direction.
    """

    exponent: float = 1.0
    noise: float = 1e-2
    size: int = 100
    start: float = 1.0

    @cached_property
    def curvatures(self) -> FloatArray:
        """(size,) eigenvalues; the largest is 1, so that rates below 2 are stable."""
        return np.arange(1, self.size + 1, dtype=np.float64) ** -self.exponent

    def risk(self, rates: npt.ArrayLike, noise: npt.ArrayLike = 1.0) -> FloatArray:
        """Expected loss after a run.

        Args:
            rates: (steps,) the rate of each update, or (steps, n) for n runs at once.
            noise: (steps,) what the noise's variance is multiplied by at each update.

        Returns:
            A scalar array, or (n,).

        >>> float(NoisyQuadratic(noise=0.0, size=1).risk([1.0]))
        0.0
        """
        eta = np.asarray(rates, dtype=np.float64)
        runs = eta.reshape(eta.shape[0], -1)
        h = self.curvatures[:, None]
        squares = np.full((self.size, runs.shape[1]), self.start)
        variance = self.noise * h
        for step, scale in zip(runs, np.broadcast_to(noise, eta.shape[:1]), strict=True):
            squares *= (1 - step * h) ** 2
            squares += (step**2 * scale) * variance
        risks: FloatArray = 0.5 * (h * squares).sum(axis=0)
        return risks.reshape(eta.shape[1:])

    def best_risk(
        self, profile: npt.ArrayLike, peaks: npt.ArrayLike, noise: npt.ArrayLike = 1.0
    ) -> tuple[float, float]:
        """Lowest risk over peaks, and the peak that has it.

        Args:
            profile: (steps,) rates for a peak of 1.
            peaks: (n,) peaks to try.
            noise: As in `risk`.
        """
        grid = np.asarray(peaks, dtype=np.float64)
        risks = self.risk(np.asarray(profile, dtype=np.float64)[:, None] * grid, noise)
        i = int(np.argmin(np.where(np.isfinite(risks), risks, np.inf)))
        return float(risks[i]), float(grid[i])


def peak_grid(lowest: float = 0.01, highest: float = 1.95, n: int = 40) -> FloatArray:
    """Peaks on a logarithmic grid; the highest lies just below the limit of stability, 2."""
    if not 0 < lowest < highest:
        raise PlanError("peaks must rise from above zero", place="lowest", value=(lowest, highest))
    return np.geomspace(lowest, highest, n)


def tuned_risks(
    model: NoisyQuadratic,
    schedules: Mapping[str, Schedule],
    steps: int,
    peaks: npt.ArrayLike | None = None,
) -> dict[str, float]:
    """The risk of each schedule at its own best peak, on one grid for all.

    Args:
        model: The quadratic.
        schedules: By name, each with a peak of 1.
        steps: Length of the run.
        peaks: The grid; by default `peak_grid`.
    """
    grid = peak_grid() if peaks is None else peaks
    times = np.arange(steps, dtype=np.float64)
    return {
        name: model.best_risk(schedule.resolve(steps)(times), grid)[0]
        for name, schedule in schedules.items()
    }


def gradient_norms(
    model: NoisyQuadratic, rates: npt.ArrayLike, seed: int, noise: npt.ArrayLike = 1.0
) -> FloatArray:
    """L2 norms of the noisy gradients of one SGD run, from a random start.

    Args:
        model: The quadratic.
        rates: (steps,) the rate of each update.
        seed: Of start and noise.
        noise: As in `NoisyQuadratic.risk`.

    Returns:
        (steps,)
    """
    eta = np.asarray(rates, dtype=np.float64)
    scale = np.sqrt(np.broadcast_to(noise, eta.shape) * model.noise)
    h, random = model.curvatures, np.random.default_rng(seed)
    theta = random.standard_normal(model.size) * np.sqrt(model.start)
    norms = np.empty(eta.size)
    for t in range(eta.size):
        gradient = h * theta + scale[t] * np.sqrt(h) * random.standard_normal(model.size)
        norms[t] = np.linalg.norm(gradient)
        theta -= eta[t] * gradient
    return norms
