"""Forecast where a falling loss will be, from its first steps: L(x) = a exp(b x) + c, b < 0.

AutoLRS (Jin et al., 2021, arXiv 2105.10762) judges a learning rate by the loss that a short trial
would reach after many more steps. Two fits are offered. `exponential_forecast`, the default, fits
the curve to the losses themselves. `released_forecast` does what the authors' program does: it
smooths the losses with a spline first, which for losses of ordinary size is one parabola, so that
even a perfect exponential is forecast too low.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from trainplan._extras import require
from trainplan.errors import PlanError

FloatArray = npt.NDArray[np.float64]

_SLOWEST, _FASTEST, _GRID = 1e-4, 0.5, 60
_ROUNDS, _SHARE = 10, 0.03


Forecasting = Literal["exponential", "released", "last"]
"""How a forecast is made."""


class ForecastError(ValueError):
    """The losses do not determine a falling exponential."""


@dataclass(frozen=True)
class Forecast:
    """A fitted curve ``a exp(b x) + c``.

    Attributes:
        a: What is still to be lost at x = 0.
        b: Below 0: the rate at which it is lost, per point.
        c: The loss in the end.
        kept: The points that were fitted; the others were taken for outliers.

    >>> Forecast(1.0, -0.5, 2.0)(0)
    3.0
    """

    a: float
    b: float
    c: float
    kept: tuple[float, ...] = ()

    def __call__(self, x: float) -> float:
        """The loss at point ``x``, counted from the first loss."""
        return self.a * math.exp(self.b * x) + self.c


def exponential_forecast(losses: Any) -> Forecast:
    """Least squares on the losses themselves, each replaced by the median of the five around it.

    ``-b`` is searched between 1e-4 and 0.5 per point: on a logarithmic grid, then by golden
    section. For every ``b`` the best ``a`` and ``c`` are known in closed form. If no loss is below
    0, neither is ``c``.

    Args:
        losses: (n,) losses in their order; three or more, all finite.

    Raises:
        PlanError: If they are fewer, or one is not finite.

    >>> curve = exponential_forecast([1.5 * math.exp(-0.03 * x) + 0.7 for x in range(100)])
    >>> round(curve.a, 4), round(curve.b, 4), round(curve.c, 4)
    (1.5, -0.03, 0.7)
    """
    values = finite_losses(losses)
    x, y = _medians(values)
    floor = 0.0 if values.min() >= 0 else -math.inf

    def misfit(log_rate: float) -> float:
        return _fit(math.exp(log_rate), x, y, floor)[2]

    grid = np.linspace(math.log(_SLOWEST), math.log(_FASTEST), _GRID)
    best = int(np.argmin([misfit(rate) for rate in grid]))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, _GRID - 1)]
    rate = math.exp(_golden_section(misfit, float(low), float(high)))
    a, c, _ = _fit(rate, x, y, floor)
    return Forecast(a, -rate, c, tuple(x.tolist()))


def released_forecast(losses: Any, *, training: bool = True) -> Forecast:
    """The fit of the authors' program, with its oddities, for comparison with published runs.

    Rounds of a quadratic smoothing spline drop outliers (only early ones can be); the spline
    through the rest is the smoothed curve; ``log(-b)`` is found by Nelder and Mead's simplex from
    0, and ``a`` and ``c`` by least squares.

    Args:
        losses: (n,) losses in their order.
        training: Ten rounds that drop 3 % of the points each; else (few validation losses) one
            round that drops at most one point.

    Raises:
        ForecastError: If the losses rise, lie on a line, or are too few.
    """
    optimize = require("scipy.optimize", extra="laws")
    values = finite_losses(losses)
    x = np.arange(values.size, dtype=np.float64)
    kept_x, kept_y = drop_outliers(x, values, training=training)
    smooth = _spline(kept_x, kept_y)(x)

    def misfit(log_rate: FloatArray) -> float:
        return _plain_fit(-math.exp(float(np.ravel(log_rate)[0])), x, smooth)[2]

    found = optimize.fmin(misfit, 0.0, xtol=1e-5, ftol=1e-5, disp=False)
    b = -math.exp(float(found[0]))
    a, c, _ = _plain_fit(b, x, smooth)
    return Forecast(a, b, c, tuple(kept_x.tolist()))


def last_mean(losses: Any, count: int = 10) -> float:
    """The mean of the last losses: a forecast that nothing changes.

    >>> last_mean([5.0, 1.0, 3.0], count=2)
    2.0
    """
    return float(np.mean(finite_losses(losses, least=1)[-count:]))


def foresee(
    losses: Any, horizon: int, kind: Forecasting = "exponential", *, training: bool = True
) -> float:
    """The loss forecast at point ``horizon``; the mean of the last ten where no curve fits.

    >>> round(foresee([math.exp(-0.1 * x) + 1 for x in range(50)], 500), 6)
    1.0
    """
    fallback = last_mean(losses)
    if kind == "last":
        return fallback
    try:
        curve = (
            exponential_forecast(losses)
            if kind == "exponential"
            else released_forecast(losses, training=training)
        )
    except ForecastError:
        return fallback
    value = curve(horizon)
    return value if math.isfinite(value) else fallback


def drop_outliers(
    x: FloatArray, y: FloatArray, *, training: bool = True
) -> tuple[FloatArray, FloatArray]:
    """The released filter: drop the points farthest from a smoothing spline, early ones only.

    Args:
        x: (n,) positions, in order.
        y: (n,) losses.
        training: Ten rounds of 3 % of the points, or one round of one point.

    Raises:
        ForecastError: If too few points are left for a spline.
    """
    # A rank among the surviving points is compared with this position, as the program does.
    half = x[(x.size - 1) // 2]
    for _ in range(_ROUNDS if training else 1):
        distance = np.abs(y - _spline(x, y)(x))
        count = round(_SHARE * x.size) if training else 1
        # In the program a share that rounds to nothing marks every point.
        farthest = np.argsort(distance, kind="stable")[-count:]
        keep = np.ones(x.size, dtype=bool)
        keep[farthest[farthest < half]] = False
        x, y = x[keep], y[keep]
    return x, y


def finite_losses(losses: Any, least: int = 3) -> FloatArray:
    """``losses`` as an array.

    Raises:
        PlanError: If there are fewer than ``least``, or one is not finite.
    """
    values = np.asarray(losses, dtype=np.float64).ravel()
    if values.size < least:
        raise PlanError(
            f"a forecast needs {least} losses or more",
            place="losses",
            value=values.size,
            remedy="Make the trials longer",
        )
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise PlanError("not a finite loss", place=f"losses[{bad[0]}]", value=values[bad[0]])
    return values


def _medians(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Running medians of five, without the two points at each end; few losses stay as they are."""
    x = np.arange(values.size, dtype=np.float64)
    if values.size < 9:
        return x, values
    windows = np.lib.stride_tricks.sliding_window_view(values, 5)
    return x[2:-2], np.asarray(np.median(windows, axis=1), dtype=np.float64)


def _fit(rate: float, x: FloatArray, y: FloatArray, floor: float) -> tuple[float, float, float]:
    """Best a and c >= floor for exp(-rate x), and the sum of squares that is left."""
    u = np.exp(-rate * x)
    spread = u - u.mean()
    a = float(spread @ y / (spread @ spread))
    c = float(y.mean() - a * u.mean())
    if c < floor:
        c = floor
        a = float(u @ (y - c) / (u @ u))
    rest = y - a * u - c
    return a, c, float(rest @ rest)


def _plain_fit(b: float, x: FloatArray, y: FloatArray) -> tuple[float, float, float]:
    columns = np.stack([np.exp(b * x), np.ones(x.size)], axis=1)
    (a, c), rest, *_ = np.linalg.lstsq(columns, y, rcond=None)
    if not rest.size:
        raise ForecastError("the losses do not fall like an exponential")
    return float(a), float(c), float(rest[0])


def _spline(x: FloatArray, y: FloatArray) -> Any:
    interpolate = require("scipy.interpolate", extra="laws")
    if x.size < 3:
        raise ForecastError("too few losses are left for a quadratic spline")
    return interpolate.UnivariateSpline(x, y, k=2)


def _golden_section(function: Any, low: float, high: float, rounds: int = 40) -> float:
    """The place of the least value of a function with one valley between ``low`` and ``high``."""
    ratio = (math.sqrt(5) - 1) / 2
    a, b = high - ratio * (high - low), low + ratio * (high - low)
    at_a, at_b = function(a), function(b)
    for _ in range(rounds):
        if at_a <= at_b:
            high, b, at_b = b, a, at_a
            a = high - ratio * (high - low)
            at_a = function(a)
        else:
            low, a, at_a = a, b, at_b
            b = low + ratio * (high - low)
            at_b = function(b)
    return (low + high) / 2
