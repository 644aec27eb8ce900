"""How the best learning rate of warm-up, stable, decay changes with tokens and batch size.

eta = batch a T^b. Shen et al., 2024, "Power Scheduler: A Batch Size and Token Number Agnostic
Learning Rate Scheduler", arXiv 2408.13359: a = 4.6 and b = -0.51 over 12M to 121M parameters, with
muP, batches in sequences of 4096 tokens. Other set-ups need a fit of their own; the fitted pair
then drives `trainplan.schedules.power` (whose own a, 4, is another number than this law's).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trainplan.errors import PlanError
from trainplan.schedules.values import count, finite

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RateLaw:
    """gamma(T) = a T^b: the best stable rate per sequence of the batch.

    Attributes:
        a: Above 0.
        b: Below 0 as a rule.

    >>> law = RateLaw()
    >>> round(law.rate(batch=1024, tokens=10e12), 4)
    0.0011
    """

    a: float = 4.6
    b: float = -0.51

    def __post_init__(self) -> None:
        if finite(self.a, "a") <= 0:
            raise PlanError("must be above zero", place="a", value=self.a)
        finite(self.b, "b")

    def gamma(self, tokens: npt.ArrayLike) -> Any:
        """The best rate per sequence, for a run of so many tokens."""
        value = self.a * _positive(tokens, "tokens") ** self.b
        return float(value) if np.ndim(value) == 0 else value

    def rate(self, batch: npt.ArrayLike, tokens: npt.ArrayLike) -> Any:
        """The best stable rate for batches of so many sequences and so many tokens in all.

        Args:
            batch: Sequences of 4096 tokens, broadcast against ``tokens``.
            tokens: Length of the run.
        """
        value = _positive(batch, "batch") * np.asarray(self.gamma(tokens))
        return float(value) if np.ndim(value) == 0 else value

    def cap_ends(self, batch: float, peak: float) -> float:
        """Tokens after which the law is below a peak: (batch a / peak)^(-1/b).

        >>> f"{RateLaw(a=4.0).cap_ends(batch=1024, peak=0.02):.1e}"
        '2.6e+10'
        """
        if self.b >= 0:
            raise PlanError("the law never falls below the peak", place="b", value=self.b)
        top, size = finite(peak, "peak"), finite(batch, "batch")
        if top <= 0 or size <= 0:
            raise PlanError("must be above zero", place="peak", value=(batch, peak))
        return float((size * self.a / top) ** (-1 / self.b))


def fit_rate_law(tokens: npt.ArrayLike, gamma: npt.ArrayLike) -> RateLaw:
    """Fit gamma = a T^b by least squares of the logarithms.

    Args:
        tokens: (n,) lengths of runs, two different ones at least.
        gamma: (n,) best rates per sequence of the batch, see `best_gamma`.

    >>> law = fit_rate_law([1e9, 1e10, 1e11], RateLaw(4.0, -0.5).gamma([1e9, 1e10, 1e11]))
    >>> round(law.a, 6), round(law.b, 6)
    (4.0, -0.5)
    """
    x, y = np.log(_positive(tokens, "tokens")), np.log(_positive(gamma, "gamma"))
    if x.ndim != 1 or x.shape != y.shape or np.unique(x).size < 2:
        raise PlanError(
            "needs one value for each of two lengths or more",
            place="gamma",
            value=f"shapes {x.shape} and {y.shape}",
        )
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())
    return RateLaw(float(np.exp(y.mean() - slope * x.mean())), slope)


def best_gamma(
    rates: npt.ArrayLike, batches: npt.ArrayLike, losses: npt.ArrayLike, top: int = 3
) -> float:
    """The best rate per sequence at one length, from a sweep over rates and batch sizes.

    For each batch size the rate with the smallest loss is taken, and for the ``top`` batch sizes
    with the smallest such losses the mean of rate / batch.

    Args:
        rates: (R,) learning rates.
        batches: (B,) batch sizes in sequences.
        losses: (B, R) final losses; runs that diverged are inf or NaN.
        top: How many batch sizes count.

    >>> best_gamma([0.1, 0.2], [1, 2], [[3.0, 3.1], [3.0, 2.9]])
    0.1
    """
    eta, size = _positive(rates, "rates"), _positive(batches, "batches")
    loss = np.asarray(losses, dtype=np.float64)
    if loss.shape != (size.size, eta.size):
        raise PlanError(
            f"needs {size.size} rows of {eta.size} losses", place="losses", value=loss.shape
        )
    loss = np.where(np.isfinite(loss), loss, np.inf)
    kept = np.argsort(loss.min(axis=1), kind="stable")[: count(top, "top")]
    kept = kept[np.isfinite(loss.min(axis=1)[kept])]
    if not kept.size:
        raise PlanError("every run diverged", place="losses")
    return float((eta[loss[kept].argmin(axis=1)] / size[kept]).mean())


def batch_exponent(batches: npt.ArrayLike, rates: npt.ArrayLike) -> float:
    """The power of the batch size that the best rates of one length follow.

    The law takes it to be 1. Where a sweep says otherwise (1/2 is usual for Adam with small
    batches), the law carries over to other lengths but not to other batch sizes.

    Args:
        batches: (n,) batch sizes, two different ones at least.
        rates: (n,) the best rate of each.

    >>> round(batch_exponent([16, 64], [1e-3, 2e-3]), 6)
    0.5
    """
    x, y = np.log(_positive(batches, "batches")), np.log(_positive(rates, "rates"))
    if x.ndim != 1 or x.shape != y.shape or np.unique(x).size < 2:
        raise PlanError(
            "needs one rate for each of two batch sizes or more",
            place="rates",
            value=f"shapes {x.shape} and {y.shape}",
        )
    return float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())


def _positive(values: npt.ArrayLike, place: str) -> FloatArray:
    x = np.asarray(values, dtype=np.float64)
    if not (np.isfinite(x) & (x > 0)).all():
        raise PlanError("must be numbers above zero", place=place, value=np.asarray(values))
    return x
