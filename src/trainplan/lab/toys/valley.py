"""The noisy river valley: steep walls with noise, and a flat river along which progress is made.

Wen et al., 2024, arXiv 2410.05192. A high rate makes progress along the river that the noise
between the walls hides; a decay reveals it. The expected loss of SGD is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class State:
    """The moments of the two coordinates.

    Attributes:
        river_mean: Mean of x.
        river_variance: Variance of x.
        hill_variance: Variance of y, whose mean is 0.
    """

    river_mean: float
    river_variance: float
    hill_variance: float


@dataclass(frozen=True)
class RiverValley:
    """1/2 hill y^2 + 1/2 river x^2, with additive gradient noise on both coordinates.

    Attributes:
        hill: Curvature of the walls, k_h.
        river: Curvature along the river, k_r, far smaller.
        hill_noise: Standard deviation of the gradient noise on y.
        river_noise: Standard deviation of the gradient noise on x.
    """

    hill: float = 10.0
    river: float = 0.002
    hill_noise: float = 1.0
    river_noise: float = 0.3

    def run(self, rates: npt.ArrayLike, state: State) -> tuple[FloatArray, FloatArray, State]:
        """Expected losses after each update, and the state at the end.

        Args:
            rates: (steps,) the rate of each update.
            state: Where it starts.

        Returns:
            Hill losses (steps,), river losses (steps,), and the last state.

        >>> valley = RiverValley(hill=10.0, river=0.05, hill_noise=0.5, river_noise=0.5)
        >>> hill, river, _ = valley.run([0.1], State(3.0, 0.0, 0.2))
        >>> round(float(hill[0]), 4), round(float(river[0]), 6)
        (0.0125, 0.222818)
        """
        eta = np.asarray(rates, dtype=np.float64)
        hill, river = np.empty(eta.size), np.empty(eta.size)
        mean, spread, wall = state.river_mean, state.river_variance, state.hill_variance
        for t, rate in enumerate(eta.tolist()):
            wall = (1 - rate * self.hill) ** 2 * wall + (rate * self.hill_noise) ** 2
            keep = 1 - rate * self.river
            mean *= keep
            spread = keep**2 * spread + (rate * self.river_noise) ** 2
            hill[t] = 0.5 * self.hill * wall
            river[t] = 0.5 * self.river * (mean**2 + spread)
        return hill, river, State(mean, spread, wall)

    def floor(self, rate: float) -> float:
        """The loss between the walls that noise keeps up at a constant rate."""
        return 0.5 * rate * self.hill_noise**2 / (2 - rate * self.hill)
