"""Fit a law to curves: robust loss in log space, several starts, weak scale-free priors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainplan._extras import require
from trainplan.laws.curves import Curve, listed
from trainplan.laws.law import Law, kinds
from trainplan.laws.readers.raw import CurveError, Floats
from trainplan.laws.views import View, view_of

DELTA = 1e-3
"""Width of the Huber loss, in log loss."""
PRIOR_WEIGHT = 0.01
"""A prior adds ``PRIOR_WEIGHT (log value - log center) / spread`` as one more residual."""
MERGE = 64
_STARTS = (1.0, 0.7, 1.4)
_LARGEST_LOG = 30.0
_EXPONENTS = {"alpha", "beta", "gamma", "s", "p"}


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted law with what is known about its parameters.

    Attributes:
        law: With the best values.
        names: The fitted parameters.
        values: Their values in the fit's scaled units; shape (p,).
        covariance: Of the logarithms of those values (Laplace approximation); shape (p, p).
        objective: Huber sum over all points, without the priors.
        noise: Robust standard deviation of the residuals, in log loss.
        unit: 1000 times the peak rate of the curves.
        free: Parameters that the curves themselves determine: those whose spread is less than
            half that of the prior, or that have none.
    """

    law: Law
    names: tuple[str, ...]
    values: Floats
    covariance: Floats
    objective: float
    noise: float
    unit: float
    free: tuple[str, ...]

    @property
    def parameter_covariance(self) -> Floats:
        """Covariance of the law's own parameters, in the user's units; shape (p, p)."""
        chain = _chain(type(self.law), self.names, np.log(self.values), self.unit)
        return np.asarray(chain @ self.covariance @ chain.T, dtype=np.float64)


def huber(residuals: Floats, delta: float = DELTA) -> float:
    """Sum of ``r^2 / 2`` within ``delta`` and ``delta (|r| - delta / 2)`` beyond.

    >>> round(huber(np.array([0.0005, 0.01])), 10)
    9.625e-06
    """
    size = np.abs(residuals)
    return float(np.where(size <= delta, 0.5 * size**2, delta * (size - 0.5 * delta)).sum())


def fit_law(
    kind: str, curves: Any, *, priors: bool = True, options: Mapping[str, Any] | None = None
) -> Fit:
    """Fit one law.

    Minimises the Huber sum of ``log measured - log predicted`` over all points after warm-up of all
    curves, plus the priors, over the logarithms of the parameters; first by least squares, then
    with the Huber loss.

    Args:
        kind: Name of a law: annealing, multi_power, functional, concave or power.
        curves: One or more curves with the same peak rate.
        priors: Whether to use the law's priors.
        options: Values of parameters that are not fitted, such as ``lam`` of the annealing law.

    Raises:
        CurveError: If the law is unknown, the curves have different peaks, or too few points.
    """
    if kind not in kinds():
        raise CurveError("unknown law", place="kind", value=kind, remedy=", ".join(kinds()))
    fitted = [after_warmup(curve) for curve in listed(curves)]
    problem = _Problem(kinds()[kind], fitted, priors, dict(options or {}))
    best = min((problem.solve(start) for start in problem.starts()), key=lambda s: s[0])
    return problem.finish(best[1])


def after_warmup(curve: Curve) -> Curve:
    """The points of a curve after warm-up.

    Raises:
        CurveError: If fewer than four are left.
    """
    kept = curve.between(max(curve.warmup, 1), math.inf) if _any_after(curve) else curve
    if len(kept) < 4 or not _any_after(curve):
        raise CurveError(
            f"fewer than four points after warm-up (step {curve.warmup})", place=curve.name
        )
    return kept


def _any_after(curve: Curve) -> bool:
    return bool((curve.steps >= max(curve.warmup, 1)).any())


def common_peak(curves: Sequence[Curve]) -> float:
    """The peak rate of the curves.

    Raises:
        CurveError: If they differ by more than 2 %.
    """
    peaks = [curve.peak for curve in curves]
    if max(peaks) > 1.02 * min(peaks):
        raise CurveError(
            "the curves have different peak rates, and parameters do not carry over",
            place="peak",
            value={curve.name: curve.peak for curve in curves},
            remedy="Fit the curves of each peak alone",
        )
    return max(peaks)


def _chain(law: type[Law], names: Sequence[str], logs: Floats, unit: float = 1.0) -> Floats:
    """Derivatives of a law's parameters by the logs of the fit's, by complex steps."""
    columns = []
    for i in range(logs.size):
        moved = np.clip(logs, -_LARGEST_LOG, _LARGEST_LOG).astype(complex)
        moved[i] += 1e-20j
        values = law.scaled(dict(zip(names, np.exp(moved), strict=True)), unit)
        columns.append([np.imag(values[name]) / 1e-20 for name in names])
    return np.array(columns).T


class _Problem:
    """The residuals of a fit and their derivatives, in logs of scaled parameters."""

    def __init__(
        self, law: type[Law], curves: Sequence[Curve], priors: bool, options: dict[str, Any]
    ) -> None:
        self.law = law
        self.names = tuple(law.units)
        self.options = options
        self.peak = common_peak(curves)
        unit = 1000.0 * self.peak
        self.unit = unit
        self.views: list[View] = [
            view_of(c.rates, c.steps, c.warmup, merge=MERGE, scale=unit) for c in curves
        ]
        self.logs = np.concatenate([np.log(c.loss) for c in curves])
        self.lowest = min(float(c.loss.min()) for c in curves)
        self.highest = max(float(c.loss.max()) for c in curves)
        self.priors = law.priors if priors else {}

    def starts(self) -> list[Floats]:
        """Starting points: the guesses, with flatter and steeper power laws."""
        guesses = dict(self.law.guesses)
        guesses["L0"] *= self.lowest
        exponent = "s" if "s" in guesses else "alpha"
        factors = _STARTS if not self.priors else _STARTS[:1]
        return [
            np.log([guesses[n] * (f if n == exponent else 1.0) for n in self.names])
            for f in factors
        ]

    def bounds(self) -> tuple[Floats, Floats]:
        """Where a law still means something, in logs.

        L0 lies below the highest loss (a drop may take the loss below it); exponents stay within
        a factor of 8 of the guess, scales within a factor of a thousand.
        """
        low, high = [], []
        for name in self.names:
            guess = self.law.guesses[name]
            reach = 8.0 if name in _EXPONENTS else 1000.0
            floor = name == "L0"
            low.append(math.log(0.01 * self.lowest if floor else guess / reach))
            high.append(math.log(self.highest if floor else guess * reach))
        return np.array(low), np.array(high)

    def build(self, logs: Floats, unit: float = 1.0) -> Law:
        """The law in units where rates are divided by the problem's unit, or in the user's."""
        values = dict(
            zip(self.names, np.exp(np.clip(logs, -_LARGEST_LOG, _LARGEST_LOG)), strict=True)
        )
        plain = {k: float(v) for k, v in self.law.scaled(values, unit).items()}
        return self.law(**plain, **self.options)

    def residuals(self, logs: Floats) -> tuple[Floats, Floats]:
        """Residuals, the priors' last, and their derivatives."""
        law = self.build(logs)
        parts = [law.slopes(view) for view in self.views]
        loss = np.concatenate([part[0] for part in parts])
        slope = np.concatenate([part[1] for part in parts]) @ _chain(self.law, self.names, logs)
        safe = np.maximum(loss, 1e-3)
        jacobian = np.where((loss > 1e-3)[:, None], slope / safe[:, None], 0.0)
        rows = [np.log(safe) - self.logs]
        for i, name in enumerate(self.names):
            if name in self.priors:
                prior = self.priors[name]
                rows.append(
                    np.array([PRIOR_WEIGHT * (logs[i] - math.log(prior.center)) / prior.spread])
                )
                row = np.zeros((1, logs.size))
                row[0, i] = PRIOR_WEIGHT / prior.spread
                jacobian = np.concatenate([jacobian, row])
        return np.concatenate(rows), np.nan_to_num(jacobian)

    def solve(self, start: Floats) -> tuple[float, Floats]:
        """Least squares, then Huber; the objective with priors, and the logs of the values."""
        least_squares = require("scipy.optimize", extra="laws").least_squares
        bounds = self.bounds()
        cache: dict[bytes, tuple[Floats, Floats]] = {}

        def both(x: Floats) -> tuple[Floats, Floats]:
            key = x.tobytes()
            if key not in cache:
                cache.clear()
                cache[key] = self.residuals(x)
            return cache[key]

        x = start
        for loss in ("linear", "huber"):
            found = least_squares(
                lambda z: both(z)[0], x, lambda z: both(z)[1], x_scale="jac", loss=loss,
                f_scale=DELTA,
                bounds=bounds, max_nfev=200, xtol=1e-9, ftol=1e-9, gtol=1e-14,
            )  # fmt: skip
            x = found.x
        return float(found.cost), x

    def finish(self, logs: Floats) -> Fit:
        """The law in the user's units, and the Laplace approximation."""
        rows, jacobian = self.residuals(logs)
        n = self.logs.size
        noise = 1.4826 * float(np.median(np.abs(rows[:n])))
        weight = np.minimum(1.0, DELTA / np.maximum(np.abs(rows[:n]), 1e-12)) ** 0.5
        weighted = jacobian[:n] * weight[:, None]
        # Neighbouring residuals of a curve are alike: count every tenth point.
        precision = weighted.T @ weighted / (10.0 * max(noise, 1e-5) ** 2)
        known = {name: 1.0 / prior.spread**2 for name, prior in self.law.priors.items()}
        precision += np.diag([known.get(name, 0.0) for name in self.names])
        covariance = np.asarray(np.linalg.pinv(precision, hermitian=True), dtype=np.float64)
        spread = np.sqrt(np.maximum(np.diag(covariance), 0.0))
        free = tuple(
            name
            for name, s in zip(self.names, spread, strict=True)
            if name not in known or s < 0.5 * self.law.priors[name].spread
        )
        return Fit(
            law=self.build(logs, self.unit),
            names=self.names,
            values=np.exp(logs),
            covariance=covariance,
            objective=huber(rows[:n]),
            noise=noise,
            unit=self.unit,
            free=free,
        )
