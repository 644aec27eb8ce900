"""How long a network remembers, from how its units' activity decays.

The autocovariance of a unit that is driven by noise is fitted by one exponential and by a mixture
of two; the slower time constant of the better fit is its timescale. After Khajehabdollahi et al.,
2023, arXiv 2309.12927.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trainplan._extras import require
from trainplan.errors import PlanError
from trainplan.schedules.values import count

Floats = npt.NDArray[np.float64]
LONGEST = 100.0
"""The largest time constant of a fit."""


def autocovariance(trials: Any, lags: int = 30) -> Floats:
    """(lags + 1,) covariance of a signal with itself, from lag 0 on, averaged over trials.

    Each trial's own mean is removed; lag k of n values has the divisor n - k - 1, like a variance.

    Args:
        trials: (R, n) or (n,) values, or with further axes, each of which is a signal: (R, n, H)
            gives (lags + 1, H).
        lags: The longest lag.

    >>> autocovariance([1.0, -1.0, 1.0, -1.0], 1).round(3).tolist()
    [1.333, -1.5]
    """
    x = np.asarray(trials, dtype=np.float64)
    x = x[None] if x.ndim == 1 else x
    n = x.shape[1]
    if not count(lags, "lags", least=0) < n:
        raise PlanError(
            "longer than the signal", place="lags", value=lags, remedy=f"At most {n - 1}"
        )
    x = x - x.mean(axis=1, keepdims=True)
    rows = [(x[:, : n - k] * x[:, k:]).sum(axis=1) / (n - k - 1) for k in range(lags + 1)]
    averaged: Floats = np.stack(rows).mean(axis=1)
    return averaged


@dataclass(frozen=True)
class Timescale:
    """A fit of an autocovariance.

    Attributes:
        exponentials: How many the better fit has: 1 or 2.
        tau: Its slowest time constant, in steps.
        aic: Akaike's criterion of the fits with one and with two: 2 k + n ln(RSS / n).
    """

    exponentials: int
    tau: float
    aic: tuple[float, float]


def fit_timescale(covariance: Any, lags: Any = None) -> Timescale:
    """Fit a exp(-t / tau), and a (c exp(-t / tau1) + (1 - c) exp(-t / tau2)); take the lower AIC.

    Args:
        covariance: (n,) from lag 0 on; divided by its first value.
        lags: (n,) lags; 0, 1, ... by default.

    Raises:
        PlanError: If there are fewer than five values, or the first is not above 0.

    >>> fit = fit_timescale(0.7 ** np.arange(31))
    >>> fit.exponentials, round(fit.tau, 3)  # -1 / log(0.7)
    (1, 2.804)
    """
    y = np.asarray(covariance, dtype=np.float64)
    t = np.arange(len(y), dtype=np.float64) if lags is None else np.asarray(lags, np.float64)
    if y.ndim != 1 or len(y) < 5 or len(t) != len(y) or not y[0] > 0:
        remedy = "Give at least five, the first above 0"
        raise PlanError("cannot be fitted", place="covariance", value=y.shape, remedy=remedy)
    y = y / y[0]
    one, tau = _best(_single, t, y, [(0.9, guess) for guess in (1.0, 5.0, 30.0)])
    starts = [(0.9, 0.5, fast, slow) for fast, slow in ((1.0, 5.0), (2.0, 20.0), (5.0, 60.0))]
    two, both = _best(_double, t, y, starts)
    aic = (_aic(one, 2, len(y)), _aic(two, 4, len(y)))
    # A perfect fit by one exponential is one by two as well.
    if aic[0] <= aic[1] or one < 1e-12:
        return Timescale(1, float(tau[1]), aic)
    weights = (both[1], 1 - both[1])
    slowest = max(tau for tau, weight in zip(both[2:], weights, strict=True) if weight > 0)
    return Timescale(2, float(slowest), aic)


def _single(p: Floats, t: Floats) -> Floats:
    return np.asarray(p[0] * np.exp(-t / p[1]))


def _double(p: Floats, t: Floats) -> Floats:
    return np.asarray(p[0] * (p[1] * np.exp(-t / p[2]) + (1 - p[1]) * np.exp(-t / p[3])))


def _best(
    model: Callable[[Floats, Floats], Floats],
    t: Floats,
    y: Floats,
    starts: Sequence[tuple[float, ...]],
) -> tuple[float, Floats]:
    """The smallest sum of squares from several starts, and its parameters."""
    least_squares = require("scipy.optimize", extra="laws").least_squares
    weights = len(starts[0]) // 2  # amplitudes first, then as many time constants
    low = [0.0] * weights + [1e-9] * weights
    high = [1.0] * weights + [LONGEST] * weights
    options = {"bounds": (low, high), "xtol": 1e-12, "ftol": 1e-12, "gtol": 1e-12}
    fits = [least_squares(lambda p: model(p, t) - y, start, **options) for start in starts]
    best = min(fits, key=lambda fit: fit.cost)
    return 2 * float(best.cost), np.asarray(best.x)


def _aic(rss: float, k: int, n: int) -> float:
    return float(2 * k + n * np.log(max(rss, 1e-300) / n))


def network_timescales(
    model: Any,
    *,
    trials: int = 10,
    steps: int = 100_000,
    drop: int = 500,
    lags: int = 30,
    seed: int = 0,
) -> list[Timescale | None]:
    """The timescale of each unit of a recurrent network that hears random bits.

    Args:
        model: A `LeakyRNN`, or anything with ``states(x)`` of (T, B, 1) inputs.
        trials: How many runs are averaged.
        steps: Length of each.
        drop: How many steps at the beginning are left out.
        lags: The longest lag that is fitted.
        seed: Of the bits.

    Returns:
        One for each unit; None for a unit that never moves.

    >>> from trainplan.models import LeakyRNN
    >>> len(network_timescales(LeakyRNN(hidden=3, heads=[2]), trials=1, steps=600, drop=100))
    3
    """
    torch = require("torch", extra="torch")
    random = torch.Generator().manual_seed(seed)
    x = torch.randint(2, (count(steps, "steps"), count(trials, "trials"), 1), generator=random)
    with torch.no_grad():
        states = model.states(x.float())[1 + drop :]  # (T, R, H)
    found = autocovariance(states.transpose(0, 1).double().numpy(), lags)
    return [fit_timescale(unit) if unit[0] > 1e-12 else None for unit in found.T]
