"""Regression whose data gets better over the run, so that the optimum drifts.

The mechanism of Luo et al., 2025, arXiv 2511.18903: low-quality samples are biased, not only
noisy. If quality ascends, the last data is the best, and a decayed rate cannot learn from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainplan.errors import PlanError

FloatArray = npt.NDArray[np.float64]
ORDERS = ("uniform", "ascend", "descend")


@dataclass(frozen=True)
class DriftingRegression:
    """y = x.w* + (1 - q) bias x.b + noise, with the quality q uniform on [0, 1].

    Attributes:
        size: Number of weights d; x ~ N(0, diag(1/i)).
        steps: SGD steps, in one pass.
        batch: Samples per step.
        noise: Standard deviation of the label noise.
        bias: How far low quality moves the optimum; 0 makes it plain noise.
        low_noise: Further noise of low quality, in proportion to 1 - q.
    """

    size: int = 40
    steps: int = 2000
    batch: int = 4
    noise: float = 0.5
    bias: float = 1.0
    low_noise: float = 0.0

    def run(
        self, rates: Mapping[str, npt.ArrayLike], order: str, seed: int, every: int = 60
    ) -> dict[str, tuple[float, FloatArray]]:
        """Train one set of weights for each schedule on the same samples in the same order.

        Args:
            rates: By name, (steps,) the rate of each update.
            order: "uniform", "ascend" or "descend" in quality.
            seed: Of the problem and its samples.
            every: Steps between checkpoints.

        Returns:
            By name, the final error sum_i (w_i - w*_i)^2 / i, and the checkpoints (n, d).
        """
        if order not in ORDERS:
            raise PlanError("unknown order", place="order", value=order)
        random = np.random.default_rng(seed)
        spread = 1.0 / np.arange(1, self.size + 1)
        target, bias = random.standard_normal(self.size), random.standard_normal(self.size)
        quality = random.random(self.steps * self.batch)
        if order != "uniform":
            quality = np.sort(quality)[:: 1 if order == "ascend" else -1]
        low = (1 - quality).reshape(self.steps, self.batch)
        x = random.standard_normal((self.steps, self.batch, self.size)) * np.sqrt(spread)
        noise = random.standard_normal(low.shape) * (self.noise + self.low_noise * low)
        y = x @ target + self.bias * low * (x @ bias) + noise
        eta = np.stack([np.asarray(rate, dtype=np.float64) for rate in rates.values()])
        weights = np.zeros((len(rates), self.size))
        kept: list[FloatArray] = []
        for t in range(self.steps):
            error = weights @ x[t].T - y[t]
            weights = weights - eta[:, t, None] * (error @ x[t]) / self.batch
            if (t + 1) % every == 0 or t + 1 == self.steps:
                kept.append(weights)
        checkpoints = np.stack(kept, axis=1)
        return {
            name: (self.error(weights[i], target), checkpoints[i]) for i, name in enumerate(rates)
        }

    def error(self, weights: FloatArray, target: FloatArray) -> float:
        """Excess risk (times two) of weights (d,)."""
        return float((((weights - target) ** 2) / np.arange(1, self.size + 1)).sum())

    def target(self, seed: int) -> FloatArray:
        """The true weights (d,) of a seed."""
        return np.random.default_rng(seed).standard_normal(self.size)
