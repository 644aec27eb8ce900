"""Weights of examples from their losses, and how concentrated they are.

The losses are those of a model that was trained on the data beforehand (one full training more),
or of the model in training itself. Kesgin and Amasyali, 2023, "Cyclical Curriculum Learning", IEEE
TNNLS, arXiv 2202.05531.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from trainplan.data.draws import checked_weights
from trainplan.errors import PlanError, nearest
from trainplan.schedules.values import count, finite

Weights = npt.NDArray[np.float64]
KINDS = ("easy", "exponential", "hard", "random")


def loss_weights(
    losses: npt.ArrayLike,
    kind: Literal["easy", "exponential", "hard", "random"] = "easy",
    *,
    rate: float = 0.5,
    floor: float = 1e-12,
) -> Weights:
    """The probability of each example to be drawn first, from its loss l.

    - ``easy``: proportional to 1 / l. On a model that has learned its examples by heart these span
      many decades, and nearly the same few examples are drawn again and again: see
      `effective_number`.
    - ``exponential``: to exp(-rate l), which spares hard examples less. Where that is too small
      for a float, the smallest other weight is taken.
    - ``hard``: to l.
    - ``random``: all alike, the control.

    Args:
        losses: (n,) loss of each example, none below 0; of a sequence, the sum over it.
        kind: One of the above.
        rate: Of ``exponential``, above 0.
        floor: Losses below it count as this much, for ``easy`` and ``hard``.

    Returns:
        (n,) weights above 0 whose sum is 1.

    >>> loss_weights([0.5, 1.0, 2.0]).round(3).tolist()
    [0.571, 0.286, 0.143]
    """
    values = np.asarray(losses, dtype=np.float64)
    if values.ndim != 1 or not values.size:
        raise PlanError("needs one loss per example", place="losses", value=values.shape)
    bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if bad.size:
        raise PlanError(
            "a loss must be a number not below zero",
            place=f"losses[{bad[0]}]",
            value=float(values[bad[0]]),
        )
    if kind not in KINDS:
        raise PlanError("unknown", place="kind", value=kind, remedy=nearest(str(kind), KINDS))
    weights = _raw(values, kind, _above_zero(rate, "rate"), _above_zero(floor, "floor"))
    shares: Weights = weights / weights.sum()
    return shares


def _raw(losses: Weights, kind: str, rate: float, floor: float) -> Weights:
    if kind == "random":
        return np.ones(losses.size)
    if kind != "exponential":
        bounded = np.maximum(losses, floor)
        return bounded if kind == "hard" else 1 / bounded
    weights = np.exp(-rate * losses)
    if not weights.any():
        raise PlanError(
            "all weights are too small for a float",
            place="rate",
            value=rate,
            remedy=f"Give a rate below {700 / losses.min():.3g}",
        )
    return np.where(weights > 0, weights, weights[weights > 0].min())


def effective_number(weights: npt.ArrayLike) -> float:
    """How many equally likely examples the weights are worth: (sum w)^2 / sum w^2, 1 to n.

    >>> effective_number([1.0, 1.0, 1.0, 1.0]), effective_number([1.0, 0.0])
    (4.0, 1.0)
    """
    values = np.asarray(weights, dtype=np.float64)
    values = checked_weights(values, values.size)
    shares = values / values.sum()
    return float(1 / (shares**2).sum())


def inclusion_probabilities(weights: npt.ArrayLike, k: int) -> Weights:
    """How likely each example is among k successive draws without replacement.

    Example i comes before k others are drawn if fewer than k of the others' exponential clocks
    with rates w_j run out before its own; this is integrated over the time of the latter. Exact to
    about 1e-12, for up to a few hundred examples: the work grows with n^2 k.

    Args:
        weights: (n,) weights above 0.
        k: Number of draws, 1 to n.

    Returns:
        (n,) probabilities whose sum is k.

    >>> inclusion_probabilities([1.0, 2.0, 4.0], 1).round(4).tolist()
    [0.1429, 0.2857, 0.5714]
    """
    values = np.asarray(weights, dtype=np.float64)
    w = checked_weights(values, values.size)
    if not (w > 0).all():
        raise PlanError("a weight is not above 0", place="weights", value=float(w.min()))
    k = count(k, "k", most=w.size)
    if k == w.size:
        return np.ones(k)
    # The trapezoid rule in the logarithm of time errs by exp(-pi^2 / step), below 1e-17 here.
    step = 0.25
    latest, earliest = math.log(40 / w.min()), math.log(1e-15 / w.max())
    time = np.exp(np.arange(earliest, latest, step))
    gone = -np.expm1(-np.outer(w, time))
    number = np.zeros((w.size, time.size, k))
    number[..., 0] = 1.0
    for j in range(w.size):
        p = np.broadcast_to(gone[j], gone.shape).copy()
        p[j] = 0.0
        p = p[..., None]
        number[..., 1:] = number[..., 1:] * (1 - p) + number[..., :-1] * p
        number[..., :1] *= 1 - p
    density = np.outer(w, time) * (1 - gone)
    found: Weights = (density * number.sum(-1)).sum(-1) * step
    return found


def _above_zero(value: Any, place: str) -> float:
    number = finite(value, place)
    if number <= 0:
        raise PlanError("must be above 0", place=place, value=value)
    return number
