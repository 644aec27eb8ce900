"""Say what a handful of seeds can tell, with its uncertainty.

Training runs differ by their seed, so one number per arm says little. Here an arm is described by
a mean and a Student-t interval; two arms that ran on the same seeds by their *paired* difference,
which is free of the variation that the seed causes in both; and by the probability that one run
of the first is better than one of the second (Agarwal et al. 2021, arXiv:2108.13264).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trainplan._extras import require


@dataclass(frozen=True)
class Interval:
    """An estimate and the interval around it.

    Attributes:
        estimate: The point estimate; NaN if there is none.
        low: Lower end; ``-inf`` if the data set no bound.
        high: Upper end; ``inf`` if the data set no bound.
    """

    estimate: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside the interval."""
        return self.low > 0 or self.high < 0


def mean_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """Mean of independent values with its Student-t interval.

    ``mean +- t[(1 + confidence) / 2, n - 1] * s / sqrt(n)`` (Student 1908). A single value sets no
    bound. If a value is infinite or NaN (a run that diverged), nothing bounds the mean.

    Args:
        values: Shape (n,), n >= 1.
        confidence: In (0, 1).

    Raises:
        ValueError: If there are no values.

    Example:
        >>> interval = mean_interval([1.0, 2.0, 3.0])
        >>> round(interval.estimate, 3), round(interval.low, 3), round(interval.high, 3)
        (2.0, -0.484, 4.484)
    """
    x = _vector(values, "values")
    if not np.isfinite(x).all():
        return Interval(math.nan, -math.inf, math.inf)
    mean = float(x.mean())
    if x.size == 1:
        return Interval(mean, -math.inf, math.inf)
    stdtrit = require("scipy.special", extra="lab").stdtrit
    reach = float(stdtrit(x.size - 1, (1 + confidence) / 2) * x.std(ddof=1) / math.sqrt(x.size))
    return Interval(mean, mean - reach, mean + reach)


def paired_difference(a: ArrayLike, b: ArrayLike, confidence: float = 0.95) -> Interval:
    """Mean of ``a - b`` over seeds that both ran on, with its Student-t interval.

    Args:
        a: Shape (n,): one value per seed.
        b: Shape (n,): the values of the same seeds, in the same order.
        confidence: In (0, 1).

    Raises:
        ValueError: If the two differ in length or are empty.

    Example:
        >>> paired_difference([1.0, 2.0, 4.0], [1.5, 2.5, 4.5]).estimate
        -0.5
    """
    x, y = _vector(a, "a"), _vector(b, "b")
    if x.size != y.size:
        raise ValueError(f"a has {x.size} seeds and b has {y.size}: pairs need the same seeds")
    with np.errstate(invalid="ignore"):
        return mean_interval(x - y, confidence)


def paired_p_value(a: ArrayLike, b: ArrayLike) -> float:
    """Two-sided p-value of the paired t-test that the mean of ``a - b`` is zero.

    1 with fewer than two pairs, and with a run that diverged: then the test says nothing.

    Example:
        >>> round(paired_p_value([1.0, 2.0, 4.0], [1.5, 2.4, 4.7]), 4)
        0.0263
    """
    x, y = _vector(a, "a"), _vector(b, "b")
    if x.size != y.size:
        raise ValueError(f"a has {x.size} seeds and b has {y.size}: pairs need the same seeds")
    if x.size < 2 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return 1.0
    difference = x - y
    spread = float(difference.std(ddof=1)) / math.sqrt(difference.size)
    mean = float(difference.mean())
    if spread == 0:
        return 1.0 if mean == 0 else 0.0
    stdtr = require("scipy.special", extra="lab").stdtr
    return float(2 * stdtr(difference.size - 1, -abs(mean) / spread))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number (Holm 1979), in the order given.

    Rejecting those at most ``q`` keeps the chance of any false rejection at most ``q``.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def probability_of_improvement(
    a: ArrayLike, b: ArrayLike, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Probability that a run of ``a`` has a lower value than a run of ``b``.

    ``P(a < b) + P(a = b) / 2`` over all pairs of runs, the Mann-Whitney statistic, with a
    percentile interval from resampling the runs of each arm (Agarwal et al. 2021,
    arXiv:2108.13264; their score is higher-is-better, a loss is lower-is-better). With few runs
    the interval is optimistic: it is the whole story only from about ten seeds on.

    Args:
        a: Shape (n,); a run that diverged counts as infinite.
        b: Shape (m,).
        confidence: In (0, 1).
        resamples: Number of bootstrap samples.
        seed: Of the resampling.

    Example:
        >>> probability_of_improvement([1.0, 2.0], [3.0, 4.0])
        Interval(estimate=1.0, low=1.0, high=1.0)
    """
    x = np.nan_to_num(_vector(a, "a"), nan=np.inf)
    y = np.nan_to_num(_vector(b, "b"), nan=np.inf)
    wins = (x[:, None] < y[None, :]) + 0.5 * (x[:, None] == y[None, :])
    random = np.random.default_rng(seed)
    rows = random.integers(x.size, size=(resamples, x.size))
    columns = random.integers(y.size, size=(resamples, y.size))
    samples = wins[rows[:, :, None], columns[:, None, :]].mean(axis=(1, 2))
    tail = (1 - confidence) / 2
    low, high = np.quantile(samples, [tail, 1 - tail])
    return Interval(float(wins.mean()), float(low), float(high))


def _vector(values: ArrayLike, name: str) -> NDArray[np.float64]:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or x.size == 0:
        raise ValueError(f"{name} must be a list of at least one number; its shape is {x.shape}")
    return x
