"""The last-iterate bound for convex problems, as a law of the schedule.

Defazio et al. 2023, "When, Why and How Much? Adaptive Learning Rate Scheduling by Refinement",
arXiv 2310.07831, gives the bound; Schaipp et al. 2025, "The Surprising Agreement Between Convex
Optimization Theory and Learning-Rate Scheduling for Large Model Training", arXiv 2501.18965, finds
its shape in the losses of language models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from trainplan.errors import PlanError
from trainplan.laws.kernel import inverse_distances
from trainplan.laws.law import Law
from trainplan.laws.readers.raw import Floats
from trainplan.laws.views import Ints, View

_SUDDEN = 0.05
_TERMS: WeakKeyDictionary[View, Floats] = WeakKeyDictionary()


def bound_terms(
    rates: npt.ArrayLike, at: npt.ArrayLike | None = None, norms: npt.ArrayLike = 1.0
) -> tuple[Floats, Floats]:
    """The two terms of the bound: what is left of the start, and what the noise of steps adds.

    The last of the steps ``0..t`` of (sub)gradient descent with rates ``e`` on a convex function,
    started at distance ``D`` of a minimum, with gradients no longer than ``G[k]``, has an
    expected excess loss of at most

    ``D^2/(2 S) + sum e^2 G^2/(2 S) + 1/2 sum_{k<t} e[k]/S[k+1..t] * (e^2 G^2)[k..t]/S[k..t]``,

    where ``S`` adds up rates. Adding by parts makes of the last two terms

    ``1/2 (e[t] G[t]^2 + sum_{k<t} e[k]^2 G[k]^2 / S[k+1..t])``,

    which is what is computed: directly, or in (steps x exponentials) if that is faster. Steps at
    rate zero do not move the iterate, so they are left out.

    Args:
        rates: Rate of each step, none below zero; shape (T,).
        at: Steps ``t``; by default all.
        norms: ``G``, one number or one per step.

    Returns:
        ``1/(2 S)`` and the second expression, shape (n,). With ``D``, the bound is ``D^2 first +
        second``. Before the first step that moves, the first is infinite.

    Raises:
        PlanError: If a rate or a norm is negative or not finite, or the shapes do not match.

    >>> first, second = bound_terms([1.0, 1.0, 1.0, 1.0])
    >>> first.tolist()
    [0.5, 0.25, 0.16666666666666666, 0.125]
    >>> [round(float(x), 4) for x in second]
    [0.5, 1.0, 1.25, 1.4167]
    """
    e = np.asarray(rates, dtype=np.float64)
    length = np.asarray(norms, dtype=np.float64)
    for x, place in ((e, "rates"), (length, "norms")):
        if not (np.isfinite(x) & (x >= 0)).all():
            raise PlanError("must be finite and not below zero", place=place)
    if e.ndim != 1 or not e.size or length.shape not in ((), e.shape):
        raise PlanError(
            "needs a rate of each step, and one norm or one of each step",
            place="norms" if e.ndim == 1 and e.size else "rates",
            value=f"shapes {e.shape} and {length.shape}",
        )
    steps: Ints = np.arange(e.size) if at is None else np.atleast_1d(np.asarray(at, dtype=np.int64))
    if steps.size and (steps.min() < 0 or steps.max() >= e.size):
        raise PlanError(f"must lie in 0..{e.size - 1}", place="at", value=int(steps.max()))
    moving = np.flatnonzero(e)
    index = np.searchsorted(moving, steps, side="right") - 1
    started = index >= 0
    first, second = np.full(steps.size, math.inf), np.zeros(steps.size)
    if started.any():
        rate, square = e[moving], np.broadcast_to(length, e.shape)[moving] ** 2
        point = index[started]
        past = inverse_distances(rate, rate**2 * square, point)
        first[started] = 0.5 / np.cumsum(rate)[point]
        second[started] = 0.5 * (rate[point] * square[point] + past)
    return first, second


def best_scale(
    rates: npt.ArrayLike, distance: float = 1.0, norms: npt.ArrayLike = 1.0
) -> tuple[float, float]:
    """By how much to multiply a schedule for the least bound at its end, and that bound.

    Args:
        rates: Rate of each step; shape (T,).
        distance: ``D``, above 0.
        norms: ``G``, one number or one per step.

    Returns:
        ``D sqrt(first / second)`` and ``2 D sqrt(first second)`` with the terms of `bound_terms`.

    >>> linear = np.arange(1000, 0, -1) / 1000
    >>> constant = np.ones(1000)
    >>> best_scale(linear)[1] < 0.75 * best_scale(constant)[1]
    True
    """
    if not (math.isfinite(distance) and distance > 0):
        raise PlanError("must be above zero", place="distance", value=distance)
    size = int(np.size(np.asarray(rates)))
    first, second = (float(x[0]) for x in bound_terms(rates, [max(size - 1, 0)], norms))
    if not (math.isfinite(first) and second > 0):
        raise PlanError("no step moves", place="rates")
    return distance * math.sqrt(first / second), 2.0 * distance * math.sqrt(first * second)


@dataclass(frozen=True)
class Convex(Law):
    """``L = L0 + A / S + B (e[t] + sum_{k<t} e[k]^2 / S[k+1..t])``: the bound of `bound_terms`.

    ``S`` is the sum of the rates up to ``t`` and ``S[k+1..t]`` that after step ``k``. ``A`` stands
    for ``M D^2/2`` and ``B`` for ``M G^2/2``: scales that are fitted, since the bound has the
    shape of a loss and not its size.

    Assumed are a convex loss, plain (sub)gradient steps, and gradients of the same length
    throughout. Language models keep to none of it, yet the effect of a gradual decay comes out.
    Two things do not: progress like ``1/S`` is faster than theirs, and a rate that falls at once
    makes the bound, not the loss, jump up (see `doubts`). So "auto" does not mix this law in.

    >>> law = Convex(L0=2.6, A=0.2, B=100.0)
    >>> rates = 3e-4 * np.linspace(1, 0, 2000, endpoint=False)
    >>> [round(float(x), 3) for x in law.predict(rates, at=[999, 1999])]
    [3.64, 3.327]
    """

    L0: float
    A: float
    B: float

    kind: ClassVar[str] = "convex"
    units: ClassVar[Mapping[str, str]] = {
        "L0": "nats",
        "A": "nats rate steps",
        "B": "nats / rate",
    }
    guesses: ClassVar[Mapping[str, float]] = {"L0": 0.9, "A": 1.0, "B": 20.0}

    def on(self, view: View) -> Floats:  # noqa: D102
        return self.slopes(view)[0]

    def slopes(self, view: View) -> tuple[Floats, Floats]:  # noqa: D102
        columns = _TERMS.get(view)  # the law is linear: a fit needs them once
        if columns is None:
            first, second = bound_terms(view.rates, view.at)
            columns = np.column_stack([np.ones(first.size), 2.0 * first, 2.0 * second])
            _TERMS[view] = columns
        loss: Floats = columns @ np.array([self.L0, self.A, self.B])
        return loss, columns

    @classmethod
    def scaled(cls, values: Mapping[str, Any], unit: float) -> dict[str, Any]:  # noqa: D102
        v = dict(values)
        return v | {"A": v["A"] * unit, "B": v["B"] / unit}

    @staticmethod
    def doubts(rates: npt.ArrayLike) -> list[str]:
        """Why the bound is no guide to a schedule; empty if nothing speaks against it.

        Args:
            rates: Rate of each step; shape (T,).

        >>> Convex.doubts([1.0, 1.0, 0.1, 0.1])
        ['its rate falls by 90 % of the peak at step 2: there the bound rises, not the loss']
        """
        e = np.asarray(rates, dtype=np.float64)
        falls = -np.diff(e) / max(float(e.max(initial=0.0)), 1e-300)
        if not falls.size or falls.max() <= max(_SUDDEN, 2.0 / e.size):
            return []
        k = int(falls.argmax())
        return [
            f"its rate falls by {100 * falls[k]:.0f} % of the peak at step {k + 1}: there the "
            "bound rises, not the loss"
        ]


__all__ = ["Convex", "best_scale", "bound_terms"]
