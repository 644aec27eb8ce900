"""How the loss falls with model size and data, measured with one trunk per size.

L(N, D) = C_N N^-alpha + C_D D^-beta + L0. With warm-up, stable, decay one long run per model size
gives a point at every length for the price of a short decay each. Hu et al., 2024, "MiniCPM:
Unveiling the Potential of Small Language Models with Scalable Training Strategies", arXiv
2404.06395.

Numbers of parameters and tokens may be in any unit as long as compute is in the matching one: with
both in billions, compute is in units of 1e18 operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trainplan._extras import require
from trainplan.errors import PlanError
from trainplan.schedules.values import finite

FloatArray = npt.NDArray[np.float64]
_EXPONENTS = np.geomspace(0.04, 1.6, 16)
"""Where the fit starts from, each combination."""
_STARTS = 5


@dataclass(frozen=True)
class Optimum:
    """The best division of a compute budget.

    Attributes:
        parameters: N.
        tokens: D.
    """

    parameters: FloatArray
    tokens: FloatArray

    @property
    def tokens_per_parameter(self) -> FloatArray:
        """D / N, if both are in the same unit."""
        return self.tokens / self.parameters


@dataclass(frozen=True)
class ScalingLaw:
    """L(N, D) = c_n N^-alpha + c_d D^-beta + floor.

    Attributes:
        c_n: Above 0.
        alpha: Above 0.
        c_d: Above 0.
        beta: Above 0.
        floor: L0, the loss that remains.

    >>> law = ScalingLaw(c_n=0.0715, alpha=0.29, c_d=0.3, beta=0.23, floor=0.31)
    >>> round(law.loss(0.5, 20.0), 4)
    0.548
    """

    c_n: float
    alpha: float
    c_d: float
    beta: float
    floor: float = 0.0

    def __post_init__(self) -> None:
        for name in ("c_n", "alpha", "c_d", "beta"):
            if finite(getattr(self, name), name) <= 0:
                raise PlanError("must be above zero", place=name, value=getattr(self, name))
        finite(self.floor, "floor")

    def loss(self, parameters: npt.ArrayLike, tokens: npt.ArrayLike) -> Any:
        """The loss at N parameters and D tokens, above 0; a float, or an array of them."""
        n, d = _positive(parameters, "parameters"), _positive(tokens, "tokens")
        value = self.c_n * n**-self.alpha + self.c_d * d**-self.beta + self.floor
        return float(value) if np.ndim(value) == 0 else value

    @property
    def k(self) -> float:
        """K = (alpha c_n / (beta c_d))^(1 / (alpha + beta)); the optimum is at N/D = K^2 (C/6)^eta.

        MiniCPM prints K^2.
        """
        ratio = self.alpha * self.c_n / (self.beta * self.c_d)
        return float(ratio ** (1 / (self.alpha + self.beta)))

    @property
    def eta(self) -> float:
        """How the best N/D changes with compute: (beta - alpha) / (alpha + beta)."""
        return (self.beta - self.alpha) / (self.alpha + self.beta)

    def optimum(self, compute: npt.ArrayLike) -> Optimum:
        """The sizes of model and data that minimize the loss for a compute of C = 6 N D.

        N = K (C/6)^(beta/(alpha + beta)), D = (C/6) / N.

        >>> law = ScalingLaw(0.0715, 0.29, 0.3, 0.23, 0.31)
        >>> round(float(law.optimum(1000.0).tokens_per_parameter), 1)
        183.9
        """
        product = _positive(compute, "compute") / 6
        n = self.k * product ** (self.beta / (self.alpha + self.beta))
        return Optimum(n, product / n)


def fit_scaling_law(
    parameters: npt.ArrayLike, tokens: npt.ArrayLike, loss: npt.ArrayLike, *, huber: float = 1e-2
) -> ScalingLaw:
    """The scaling law of measured losses, by robust least squares of log losses.

    For each pair of exponents on a grid the other three numbers follow by linear least squares;
    the best few of these are refined together.

    Args:
        parameters: (n,) model sizes, at least two different ones.
        tokens: (n,) lengths of training, at least two different ones.
        loss: (n,) losses, per byte if tokenizers differ; n is at least 5.
        huber: Relative error beyond which a point counts less.

    >>> law = ScalingLaw(0.0715, 0.29, 0.3, 0.23, 0.31)
    >>> n, d = np.meshgrid([0.01, 0.04, 0.2, 0.5], [0.5, 2.0, 10.0, 40.0])
    >>> found = fit_scaling_law(n, d, law.loss(n, d))
    >>> round(found.alpha, 2), round(found.beta, 2)
    (0.29, 0.23)
    """
    least_squares = require("scipy.optimize", extra="laws").least_squares
    n, d, values = (
        _positive(x, name).ravel()
        for x, name in ((parameters, "parameters"), (tokens, "tokens"), (loss, "loss"))
    )
    if not n.size == d.size == values.size or n.size < 5:
        raise PlanError(
            "needs five losses or more, each with its size and length",
            place="loss",
            value=f"{n.size} sizes, {d.size} lengths, {values.size} losses",
        )
    for x, name in ((n, "parameters"), (d, "tokens")):
        if np.unique(x).size < 2:
            raise PlanError("needs two different values", place=name, value=float(x[0]))
    # In units of the typical size, so that the numbers to be found are of order one.
    unit_n, unit_d = np.exp(np.log(n).mean()), np.exp(np.log(d).mean())
    log_n, log_d, log_loss = np.log(n / unit_n), np.log(d / unit_d), np.log(values)

    def errors(x: FloatArray) -> FloatArray:
        terms = np.exp(x[0] - np.exp(x[1]) * log_n) + np.exp(x[2] - np.exp(x[3]) * log_d)
        return np.asarray(np.log(terms + np.exp(x[4])) - log_loss)

    fits = [
        least_squares(errors, start, loss="huber", f_scale=huber, max_nfev=2000)
        for start in _starts(log_n, log_d, values)
    ]
    x = min(fits, key=lambda fit: float(fit.cost)).x
    alpha, beta = float(np.exp(x[1])), float(np.exp(x[3]))
    return ScalingLaw(
        float(np.exp(x[0]) * unit_n**alpha),
        alpha,
        float(np.exp(x[2]) * unit_d**beta),
        beta,
        float(np.exp(x[4])),
    )


def _starts(log_n: FloatArray, log_d: FloatArray, loss: FloatArray) -> list[FloatArray]:
    """The best pairs of exponents on the grid, as starts for all five numbers' logarithms."""
    nnls = require("scipy.optimize", extra="laws").nnls
    found: list[tuple[float, FloatArray]] = []
    for alpha in _EXPONENTS:
        for beta in _EXPONENTS:
            columns = [np.exp(-alpha * log_n), np.exp(-beta * log_d), np.ones_like(loss)]
            x, error = nnls(np.stack(columns, axis=1) / loss[:, None], np.ones_like(loss))
            a, b, floor = np.log(np.maximum(x, 1e-3 * loss.min()))
            found.append((error, np.array([a, np.log(alpha), b, np.log(beta), floor])))
    found.sort(key=lambda pair: pair[0])
    return [start for _, start in found[:_STARTS]]


def optimal_batch(loss: npt.ArrayLike) -> Any:
    """The best batch size, in tokens, at a loss on C4 in nats: 1.2110e9 / loss^6.2393.

    Hu et al., 2024: a fit over models up to 0.1B parameters. The L in their formula is the loss.

    >>> round(optimal_batch(3.0))
    1277149
    """
    value = 1.2110e9 / _positive(loss, "loss") ** 6.2393
    return float(value) if np.ndim(value) == 0 else value


def trunk_cost(lengths: Sequence[float], fraction: float = 0.1) -> tuple[float, float]:
    """Steps for one trunk with a decay at each length, and for a run of its own for each.

    shared = max T_k + fraction sum T_k; separate = (1 + fraction) sum T_k, where T_k are the
    stable lengths: linear in the longest run instead of quadratic in the number of points.

    Args:
        lengths: Stable length of each point.
        fraction: Length of the decay as a share of the stable length.

    >>> trunk_cost([10_000, 20_000, 40_000, 60_000])
    (73000.0, 143000.0)
    """
    stable = _positive(lengths, "lengths")
    share = finite(fraction, "fraction")
    if stable.size == 0 or share < 0:
        raise PlanError("needs lengths, and a share not below zero", place="fraction", value=share)
    total = float(stable.sum())
    return float(stable.max()) + share * total, (1 + share) * total


def _positive(values: npt.ArrayLike, place: str) -> FloatArray:
    x = np.asarray(values, dtype=np.float64)
    if not (np.isfinite(x) & (x > 0)).all():
        raise PlanError("must be numbers above zero", place=place, value=np.asarray(values))
    return x
