"""How much of the data each round of training uses: cycles, and the ramps they are compared with.

A round is one pass over a part of the data. Its size is a fraction of all examples, or their
number; rounds go on until together they have cost a budget. Kesgin and Amasyali, 2023, "Cyclical
Curriculum Learning", IEEE TNNLS, arXiv 2202.05531.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from trainplan.errors import PlanError, nearest
from trainplan.schedules.values import count, finite

STRATEGIES = ("cycle", "sharp_cycle", "lower_to_bigger", "bigger_to_lower")
_MOST = 10**6
"""More rounds than this are a mistake."""


def cyclic_sizes(
    start: float = 0.25,
    end: float = 1.0,
    multiplier: float = 0.5,
    *,
    budget: float,
    until_full: bool = False,
) -> list[float]:
    """Fractions of the data, round by round, up from ``start`` to ``end`` and down again.

    Going up the next size is ``min(size / multiplier, end)``, going down ``max(size * multiplier,
    start)``; the ends come once per cycle. With the defaults a cycle of four rounds costs 2.25
    epochs, so that there are 1.78 rounds for each epoch of training on everything.

    Args:
        start: Smallest fraction, above 0 and at most 1.
        end: Largest fraction.
        multiplier: Above 0 and below 1; smaller is steeper.
        budget: Epochs' worth of examples. The last round is the first with which the sum reaches
            it, so that it is overshot by less than ``end``.
        until_full: Leave out what comes after the last round of size ``end``, if there is one, so
            that the phase of the cycle does not decide how the run ends.

    >>> cyclic_sizes(budget=5)
    [0.25, 0.5, 1.0, 0.5, 0.25, 0.5, 1.0, 0.5, 0.25, 0.5]
    >>> cyclic_sizes(budget=5, until_full=True)
    [0.25, 0.5, 1.0, 0.5, 0.25, 0.5, 1.0]
    """
    low, high = _share(start, "start"), _share(end, "end")
    factor, most = _multiplier(multiplier), _budget(budget)
    sizes = _until(most, _cycle(low, high, factor))
    if until_full and high in sizes:
        del sizes[len(sizes) - sizes[::-1].index(high) :]
    return sizes


def _cycle(low: float, high: float, factor: float) -> Iterator[float]:
    # Ends are compared for equality: min and max give these very numbers.
    before, size = low, low
    while True:
        yield size
        up = size == low or (before < size and size != high)
        before, size = size, min(size * (1 / factor), high) if up else max(size * factor, low)


def one_cycle(low: float, high: float, multiplier: float) -> list[float]:
    """The sizes of a cycle, from the first ``low`` to before the next, for ``low < high``."""
    sizes: list[float] = []
    for size in _cycle(low, high, _multiplier(multiplier)):
        if sizes and size == low:
            return sizes
        sizes.append(size)
        _check_number(sizes)
    raise AssertionError  # a cycle comes back


def cyclic_counts(
    n: int,
    start: float = 0.25,
    end: float = 1.0,
    multiplier: float = 0.5,
    *,
    budget: int,
    strategy: str = "cycle",
) -> list[int]:
    """Numbers of examples, round by round, by the older rules that count in whole examples.

    What goes on is not cut to the ends, only what is listed: later cycles may drift, unlike those
    of `cyclic_sizes`.

    Args:
        n: Number of examples.
        start: Fraction of the first round.
        end: The other end.
        multiplier: Above 0 and below 1.
        budget: Examples, counted as often as they are shown; overshot by less than a round.
        strategy: ``cycle`` up and down; ``sharp_cycle`` up and at once to the bottom;
            ``lower_to_bigger`` and ``bigger_to_lower`` one way, and then stay.

    >>> cyclic_counts(1000, budget=3000, strategy="sharp_cycle")
    [250, 500, 1000, 250, 500, 1000]
    """
    n, factor = count(n, "n"), _multiplier(multiplier)
    low, high = sorted((_share(start, "start"), _share(end, "end")))
    first = math.ceil(n * _share(start, "start"))
    least, most = max(math.ceil(n * low), 1), max(int(n * high), 1)
    if strategy not in STRATEGIES:
        remedy = nearest(str(strategy), STRATEGIES)
        raise PlanError("unknown", place="strategy", value=strategy, remedy=remedy)
    if strategy in ("cycle", "sharp_cycle"):
        rounds = _whole_cycle(first, least, most, factor, sharp=strategy == "sharp_cycle")
    else:
        step = 1 / factor if strategy == "lower_to_bigger" else factor
        rounds = _whole_ramp(first, least, most, step)
    return _until(count(budget, "budget"), rounds)


def _whole_cycle(size: int, least: int, most: int, factor: float, *, sharp: bool) -> Iterator[int]:
    yield size
    up = True
    while True:
        size = math.ceil(size * (1 / factor)) if up else math.ceil(size * factor)
        inside = size < most if up else size > least
        yield size if inside else most if up else least
        if inside:
            continue
        if sharp:
            size = least
            yield least
        else:
            up = not up


def _whole_ramp(size: int, least: int, most: int, step: float) -> Iterator[int]:
    yield size
    while True:
        # Above the end nothing changes any more, so that the number need not grow for ever.
        size = min(int(size * step), 2 * most)
        yield min(size, most) if step > 1 else max(size, least)


def ramp_sizes(
    edge: float, multiplier: float = 0.8, *, budget: float, hold: int = 1, growing: bool = True
) -> list[float]:
    """Fractions of the data that only grow to 1, or only shrink from it: what cycles compete with.

    Args:
        edge: The smallest fraction, above 0 and at most 1.
        multiplier: Ratio of one size to the next larger one, above 0 and below 1.
        budget: Epochs' worth of examples; looked at after all rounds of a size.
        hold: Rounds of each size.
        growing: From ``edge`` to 1, else from 1 to ``edge``.

    >>> ramp_sizes(0.4, budget=3)
    [0.4, 0.5, 0.625, 0.78125, 0.9765625]
    """
    edge, factor = _share(edge, "edge"), _multiplier(multiplier)
    most, rounds = _budget(budget), count(hold, "hold")
    sizes: list[float] = []
    size, total = edge if growing else 1.0, 0.0
    while total < most:
        shown = min(size, 1.0) if growing else max(size, edge)
        for _ in range(rounds):
            sizes.append(shown)
            total += shown
        size = min(size * (1 / factor), 2.0) if growing else size * factor
        _check_number(sizes)
    return sizes


def _until(budget: Any, rounds: Iterator[Any]) -> list[Any]:
    """Rounds until their sum reaches the budget; one at least."""
    sizes = [next(rounds)]
    total = sizes[0]
    while total < budget:
        sizes.append(next(rounds))
        total += sizes[-1]
        _check_number(sizes)
    return sizes


def _check_number(sizes: list[Any]) -> None:
    if len(sizes) > _MOST:
        raise PlanError(
            f"the budget takes more than {_MOST} rounds",
            place="budget",
            value=len(sizes),
            remedy="Begin with larger rounds, or give a smaller budget",
        )


def _share(value: Any, place: str) -> float:
    share = finite(value, place)
    if not 0 < share <= 1:
        raise PlanError("a round needs a share above 0 and at most 1", place=place, value=value)
    return share


def _multiplier(value: Any) -> float:
    factor = finite(value, "multiplier")
    if not 0 < factor < 1:
        raise PlanError(
            "must lie above 0 and below 1",
            place="multiplier",
            value=value,
            remedy="Write 0.5 to double and halve",
        )
    return factor


def _budget(value: Any) -> float:
    budget = finite(value, "budget")
    if budget <= 0:
        raise PlanError("must be above 0", place="budget", value=value)
    return budget
