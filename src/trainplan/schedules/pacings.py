"""How much of the data is open at each time: pacing functions, as schedules of a fraction.

A curriculum opens the easiest part of the data and more of it as time goes on. Any schedule
between 0 and 1 is a pacing; these are the usual ones, each from a start to all of the data (or
the other way round, if ``start`` lies above ``end``). Wu, Dyer and Neyshabur, 2021, "When Do
Curricula Work?", arXiv 2012.03107, compare them.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any

from trainplan.errors import PlanError, located
from trainplan.schedules.base import Schedule
from trainplan.schedules.durations import Duration
from trainplan.schedules.phases import Constant, Hold, Phase, Sequence
from trainplan.schedules.round_sizes import one_cycle
from trainplan.schedules.shapes import parse_shape
from trainplan.schedules.values import count, finite

_RUN = 100.0
"""The whole run in percent."""
_TOLERANCE = 1e-12
"""Relative; so that a share of a whole number of steps is not cut down to the one before."""
PACINGS = ("linear", "root", "geometric", "step", "cyclic", "full")


def pacing(
    kind: str = "root",
    start: Any = 0.1,
    full_at: Any = "50%",
    end: Any = 1.0,
    *,
    power: float = 2.0,
    steps: int = 5,
    multiplier: float = 0.5,
) -> Schedule:
    """The open fraction of the data over time.

    With u the share of the time to ``full_at`` that has passed, c0 the start and c1 the end:

    - ``linear``: c0 + u (c1 - c0).
    - ``root``: (c0^p + u (c1^p - c0^p))^(1/p) with p = ``power``, so that new examples come in at
      a rate that falls as 1/c^(p-1): with p = 2 each old example is seen about equally often
      (Platanios et al., 2019, "Competence-based Curriculum Learning", arXiv 1903.09848).
    - ``geometric``: c0 (c1 / c0)^u, so that each stretch of time opens the same factor.
    - ``step``: constant on each of ``steps`` equal stretches, with equal jumps from c0 to c1.
    - ``cyclic``: up by 1 / ``multiplier`` from c0 to c1, down again, and so on, each fraction for
      as long as one pass over it takes (Kesgin and Amasyali, 2023, "Cyclical Curriculum Learning",
      arXiv 2202.05531). ``full_at`` sets the length of passes: when the first one over c1 begins.
    - ``full``: c1 throughout, the baseline.

    Args:
        kind: One of the above.
        start: Fraction (or "10%") open at the beginning.
        full_at: When ``end`` is reached: units of the plan's time, or a share of the run ("50%").
        end: Fraction open from then on.
        power: p, for ``root``.
        steps: Number of stretches of ``step``.
        multiplier: Of ``cyclic``, above 0 and below 1; smaller is steeper.

    >>> c = pacing("root", start=0.1, full_at=100)
    >>> [round(c(t), 3) for t in (0, 50, 100, 200)]
    [0.1, 0.711, 1.0, 1.0]
    >>> [pacing("step", 0.5, 100, steps=2)(t) for t in (0, 49, 50, 100)]
    [0.5, 0.5, 0.75, 1.0]
    >>> pacing("cyclic", 0.25, 30)([0, 10, 30, 70, 90]).tolist()
    [0.25, 0.5, 1.0, 0.5, 0.25]
    """
    first, last = fraction(start, "start"), fraction(end, "end")
    if kind not in PACINGS:
        raise PlanError(
            "unknown", place="pacing", value=kind, remedy="Known: " + ", ".join(PACINGS)
        )
    if kind == "full":
        return Constant(last)
    if kind == "step":
        return _stairs(first, last, full_at, count(steps, "steps", least=2))
    if kind == "cyclic":
        return _cycles(first, last, full_at, multiplier)
    if kind == "geometric" and not (first > 0 and last > 0):
        raise PlanError("a geometric pacing needs fractions above 0", place="start", value=start)
    shapes = {
        "linear": "linear",
        "geometric": "exponential",
        "root": {"root": finite(power, "power")},
    }
    length = located("full_at", Duration.parse, full_at)
    # What is held then is a phase of its own, so that the rise keeps its length in a longer run.
    return Sequence(Phase(first, last, length, parse_shape(shapes[kind])), Hold(last))


def _stairs(first: float, last: float, full_at: Any, steps: int) -> Schedule:
    whole = located("full_at", Duration.parse, full_at)
    edges = [Duration(whole.amount * k / steps, whole.unit) for k in range(1, steps + 1)]
    levels = [first + (last - first) * k / steps for k in range(steps)]
    holds = [Hold(value, until=edge) for value, edge in zip(levels, edges, strict=True)]
    return Sequence(*holds, Hold(last))


def _cycles(first: float, last: float, full_at: Any, multiplier: float) -> Schedule:
    if not 0 < first < last:
        raise PlanError(
            "a cycle rises from a fraction above 0",
            place="start",
            value=first,
            remedy=f"Give a start below the end, {last}",
        )
    rise = located("full_at", Duration.parse, full_at)
    if not rise.amount:
        raise PlanError("a cycle needs time to rise", place="full_at", value=full_at)
    levels = one_cycle(first, last, multiplier)
    costs = list(accumulate(levels))
    ends = [rise.amount * cost / costs[levels.index(last) - 1] for cost in costs]
    period = ends[-1]
    if rise.relative and period > _RUN:
        inside = [end for end in ends if end < _RUN]
        holds = [_until(level, end, "%") for level, end in zip(levels, inside, strict=False)]
        return Sequence(*holds, Hold(levels[len(inside)]))
    # Inside a repetition shares are of the period.
    within = _RUN * (1 + _TOLERANCE) / period if rise.relative else 1.0
    holds = [
        _until(level, end * within, rise.unit)
        for level, end in zip(levels[:-1], ends[:-1], strict=True)
    ]
    return Sequence(*holds, Hold(levels[-1])).repeat(_lasting(period, rise.unit))


def _until(level: float, end: float, unit: str) -> Hold:
    return Hold(level, until=_lasting(end, unit))


def _lasting(amount: float, unit: str) -> Duration:
    """A duration as it would be read back."""
    return Duration(int(amount) if float(amount).is_integer() else amount, unit)


def fraction(value: Any, place: str) -> float:
    """A fraction from 0 to 1, also written as "10%"."""
    text = value.strip() if isinstance(value, str) else ""
    if text.endswith("%"):
        try:
            value = float(text[:-1]) / 100
        except ValueError:
            value = text
    number = finite(value, place)
    if not 0 <= number <= 1:
        raise PlanError("a fraction must lie in [0, 1]", place=place, value=value)
    return number
