"""How much of the data is open at each time: pacing functions, as schedules of a fraction.

A curriculum opens the easiest part of the data and more of it as time goes on. Any schedule
between 0 and 1 is a pacing; these are the usual ones, each from a start to all of the data (or
the other way round, if ``start`` lies above ``end``). Wu, Dyer and Neyshabur, 2021, "When Do
Curricula Work?", arXiv 2012.03107, compare them.
"""

from __future__ import annotations

from typing import Any

from trainplan.errors import PlanError, located
from trainplan.schedules.base import Schedule
from trainplan.schedules.durations import Duration
from trainplan.schedules.phases import Constant, Hold, Phase, Sequence
from trainplan.schedules.shapes import parse_shape
from trainplan.schedules.values import count, finite

PACINGS = ("linear", "root", "geometric", "step", "full")


def pacing(
    kind: str = "root",
    start: Any = 0.1,
    full_at: Any = "50%",
    end: Any = 1.0,
    *,
    power: float = 2.0,
    steps: int = 5,
) -> Schedule:
    """The open fraction of the data over time.

    With u the share of the time to ``full_at`` that has passed, c0 the start and c1 the end:

    - ``linear``: c0 + u (c1 - c0).
    - ``root``: (c0^p + u (c1^p - c0^p))^(1/p) with p = ``power``, so that new examples come in at
      a rate that falls as 1/c^(p-1): with p = 2 each old example is seen about equally often
      (Platanios et al., 2019, "Competence-based Curriculum Learning", arXiv 1903.09848).
    - ``geometric``: c0 (c1 / c0)^u, so that each stretch of time opens the same factor.
    - ``step``: constant on each of ``steps`` equal stretches, with equal jumps from c0 to c1.
    - ``full``: c1 throughout, the baseline.

    Args:
        kind: One of the above.
        start: Fraction (or "10%") open at the beginning.
        full_at: When ``end`` is reached: units of the plan's time, or a share of the run ("50%").
        end: Fraction open from then on.
        power: p, for ``root``.
        steps: Number of stretches of ``step``.

    >>> c = pacing("root", start=0.1, full_at=100)
    >>> [round(c(t), 3) for t in (0, 50, 100, 200)]
    [0.1, 0.711, 1.0, 1.0]
    >>> [pacing("step", 0.5, 100, steps=2)(t) for t in (0, 49, 50, 100)]
    [0.5, 0.5, 0.75, 1.0]
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
