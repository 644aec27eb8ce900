"""Refinement: compute the next run's schedule from the gradient norms of a previous one.

Defazio, Cutkosky, Mehta and Mishchenko, 2023, "When, Why and How Much? Adaptive Learning Rate
Scheduling by Refinement", arXiv 2310.07831. Where gradients are large the rate should be small:
a warm-up and a decay emerge by themselves, and constant norms give back linear decay.
"""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from trainplan.errors import PlanError, nearest
from trainplan.schedules.base import Schedule
from trainplan.schedules.phases import Profile
from trainplan.schedules.values import count, finite

FloatArray = npt.NDArray[np.float64]
Optimizer = Literal["adam", "sgd"]
_EXPONENTS = {"adam": -1.0, "sgd": -2.0}


def refine(
    gradient_norms: Any,
    peak: float,
    *,
    optimizer: Optimizer = "adam",
    tau: float = 0.1,
    points: int = 512,
    largest_ratio: float = 1e4,
) -> Schedule:
    """The refined schedule of the next run, from the norms of the last one.

    w_t = G_t^-1 (Adam, L1 norms) or G_t^-2 (SGD, L2 norms);
    eta_t = w_t sum_{p > t} w_p / sum_p w_p, then scaled to the peak, which is tuned separately.

    Args:
        gradient_norms: (n,) norms of the whole gradient *before clipping*, evenly spaced over the
            run; L1 for Adam, L2 for SGD. Infinite entries and the two at each end are dropped.
        peak: Largest value of the schedule.
        optimizer: Which kind of optimizer, and so of norm.
        tau: Share of the run that the smoothing window spans, in [0, 0.5).
        points: The schedule is kept as at most this many values, joined by straight lines.
        largest_ratio: Weights are capped at this multiple of their median, with a warning, so that
            norms that collapse towards 0 cannot make the schedule rise to the very end.

    Raises:
        PlanError: If there are fewer than ten usable norms, or one is negative or not a number.

    >>> schedule = refine([1.0] * 100, peak=0.1, points=10).resolve(1000)
    >>> round(schedule(500), 6)
    0.05
    """
    norms = usable_norms(gradient_norms)
    smooth = smooth_norms(norms, tau) if tau else norms
    weights = refinement_weights(smooth, optimizer)
    cap = largest_ratio * float(np.median(weights))
    if (weights > cap).any():
        warnings.warn(
            f"some gradient norms are less than 1/{largest_ratio:g} of the usual weight allows: "
            "capped. Refinement is unreliable for runs whose gradients vanish",
            stacklevel=2,
        )
        weights = np.minimum(weights, cap)
    shares = normalised_schedule(weights)
    kept = min(count(points, "points", least=2), shares.size)
    grid = np.linspace(0, shares.size - 1, kept)
    values = np.interp(grid, np.arange(shares.size), shares)
    return Profile(tuple(values.tolist())) * finite(peak, "peak")


def usable_norms(gradient_norms: Any) -> FloatArray:
    """Norms without infinite entries and without the first and last two (logging artefacts)."""
    try:
        norms = np.asarray(gradient_norms, dtype=np.float64).ravel()
    except (TypeError, ValueError):
        raise PlanError("not numbers", place="gradient_norms", value=gradient_norms) from None
    if np.isnan(norms).any() or (norms < 0).any():
        bad = int(np.argmax(np.isnan(norms) | (norms < 0)))
        raise PlanError(
            "a gradient norm is negative or not a number",
            place=f"gradient_norms[{bad}]",
            value=float(norms[bad]),
            remedy="Leave such steps out",
        )
    norms = norms[np.isfinite(norms)][2:-2]
    if norms.size < 10 or not norms.any():
        raise PlanError(
            "refinement needs ten gradient norms above zero or more, and four to drop",
            place="gradient_norms",
            value=int(norms.size),
            remedy="Record them more often",
        )
    return norms


def smooth_norms(norms: FloatArray, tau: float = 0.1) -> FloatArray:
    """Running median over a share ``tau`` of the run.

    The end is continued by reflection, so that the last noisy values are not frozen for half a
    window; the beginning by its first value.

    Args:
        norms: (n,) norms.
        tau: In [0, 0.5).
    """
    width = median_width(norms.size, tau)
    if 2 * width > norms.size - 1:
        raise PlanError(
            "the smoothing window is too wide for one reflection",
            place="tau",
            value=tau,
            remedy="Use less than 0.5, or more norms",
        )
    padded = np.concatenate([np.full(width // 2, norms[0]), norms, norms[-2 : -2 - 2 * width : -1]])
    windows = np.lib.stride_tricks.sliding_window_view(padded, width)[: norms.size]
    return np.asarray(np.median(windows, axis=1), dtype=np.float64)


def median_width(n: int, tau: float) -> int:
    """Width of the median window, an odd number.

    >>> median_width(100, 0.1)
    11
    """
    tau = finite(tau, "tau")
    if not 0 <= tau < 1:
        raise PlanError("tau must lie in [0, 1)", place="tau", value=tau)
    return 2 * (math.floor(tau * n) // 2) + 1


def refinement_weights(norms: FloatArray, optimizer: Optimizer = "adam") -> FloatArray:
    """The weights w of the norms G: 1 / G for Adam (L1 norms), 1 / G^2 for SGD (L2 norms).

    A norm of zero counts as 1e-12 of the median.
    """
    if optimizer not in _EXPONENTS:
        raise PlanError(
            "unknown kind of optimizer",
            place="optimizer",
            value=optimizer,
            remedy=nearest(str(optimizer), _EXPONENTS),
        )
    floor = 1e-12 * float(np.median(norms[norms > 0]))
    return np.asarray(np.maximum(norms, floor) ** _EXPONENTS[optimizer], dtype=np.float64)


def refined_rates(weights: FloatArray) -> FloatArray:
    """eta_t = w_t sum_{p > t} w_p / sum_p w_p; the last is 0."""
    after = np.concatenate([np.cumsum(weights[::-1])[::-1][1:], [0.0]])
    return np.asarray(weights * after / weights.sum(), dtype=np.float64)


def normalised_schedule(weights: FloatArray) -> FloatArray:
    """The refined rates divided by their maximum, so that the peak can be tuned."""
    rates = refined_rates(weights)
    return np.asarray(rates / rates.max(), dtype=np.float64)
