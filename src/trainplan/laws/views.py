"""A schedule as the laws see it: areas at the measured points, and the changes of the rate.

Laws are sums over every step at which the rate changes. For predictions all changes are kept; for
fitting, neighbouring ones are merged, which is far faster and changes a prediction by less than
1e-4 nats.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainplan.laws.readers.raw import Floats

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class View:
    """What a law needs of a schedule.

    Attributes:
        rates: Rate of each step; shape (T,).
        at: Steps at which the loss is wanted; shape (n,).
        area: Sum of the rates up to and including those steps; shape (n,).
        warmup: Changes at steps up to this one are left out.
        start: First step of each change; shape (m,).
        before: Rate before it; shape (m,).
        after: Rate after it; shape (m,).
        area_before: Area up to the step before it; shape (m,).
        area_after: Area up to and including it; shape (m,).
        log_rate: Logarithm of the rate after it; ``-inf`` at rate 0; shape (m,).
        when: Step of the change; between two steps if several were merged; shape (m,).
    """

    rates: Floats
    at: Ints
    area: Floats
    warmup: int
    start: Ints
    before: Floats
    after: Floats
    area_before: Floats
    area_after: Floats
    log_rate: Floats
    when: Floats

    @property
    def drops(self) -> Floats:
        """How far the rate falls at each change; negative where it rises."""
        return self.before - self.after


def view_of(
    rates: Floats, at: Ints | None = None, warmup: int = 0, merge: int = 1, scale: float = 1.0
) -> View:
    """Look at a schedule.

    Args:
        rates: Rate of each step.
        at: Steps to predict; by default all.
        warmup: Leave out the changes at steps up to this one; 0 keeps all.
        merge: Merge changes within blocks of so many steps (never across a point of ``at``).
        scale: Divide the rates by this.

    >>> view = view_of(np.array([1.0, 1.0, 0.5, 0.5, 0.1]))
    >>> view.start.tolist(), view.drops.tolist(), view.area.tolist()
    ([2, 4], [0.5, 0.4], [1.0, 2.0, 2.5, 3.0, 3.1])
    """
    rates = rates / scale
    areas = np.cumsum(rates)
    steps = np.arange(rates.size) if at is None else np.asarray(at, dtype=np.int64)
    change = np.zeros(rates.size)
    change[1:] = rates[:-1] - rates[1:]
    change[: warmup + 1] = 0.0
    if merge > 1:
        return _merged(rates, areas, change, steps, warmup, merge)
    k = np.flatnonzero(change)
    with np.errstate(divide="ignore"):
        logs = np.log(rates[k])
    return View(
        rates, steps, areas[steps], warmup, k, rates[k - 1], rates[k], areas[k] - rates[k],
        areas[k], logs, k.astype(np.float64),
    )  # fmt: skip


def _merged(
    rates: Floats, areas: Floats, change: Floats, at: Ints, warmup: int, block: int
) -> View:
    edges = np.unique(np.concatenate([np.arange(0, rates.size, block), at + 1, [rates.size]]))
    starts, stops = edges[:-1][edges[:-1] < rates.size], edges[1:]
    weight = np.abs(change)
    total = np.add.reduceat(weight, starts)
    kept = total > 0
    inverse = 1.0 / total[kept]

    def mean(values: Floats) -> Floats:
        return np.asarray(np.add.reduceat(weight * values, starts)[kept] * inverse)

    first = np.maximum(np.maximum(starts - 1, 0), min(warmup, rates.size - 1))[kept]
    last = (stops - 1)[kept]
    logs = np.log(np.maximum(rates, 1e-9 * rates.max()))
    return View(
        rates, at, areas[at], warmup, starts[kept], rates[first], rates[last],
        mean(areas - rates), mean(areas), mean(logs), mean(np.arange(float(rates.size))),
    )  # fmt: skip


def end_view(rates: Floats, warmup: int, blocks: int = 1000) -> View:
    """The last step of a schedule, with its changes merged, in the least time.

    What changes within a block counts as changed in its middle. For searches: the loss at the end
    differs from that of the exact view by about 1e-5 nats.
    """
    length = max(1, rates.size // blocks)
    edges = np.arange(warmup + 1, rates.size, length)
    if not edges.size:
        return view_of(rates, np.array([rates.size - 1]), warmup)
    sums = np.add.reduceat(rates, edges)
    reached = float(rates[: warmup + 1].sum()) + np.concatenate([[0.0], np.cumsum(sums)])
    last = np.append(edges[1:], rates.size) - 1
    before, after = rates[edges - 1], rates[last]
    k = np.flatnonzero(before != after)
    middle = 0.5 * (reached[:-1] + reached[1:])[k]
    logs = np.log(np.maximum(0.5 * (before + after)[k], 1e-9 * float(rates.max())))
    return View(
        rates, np.array([rates.size - 1]), reached[-1:], warmup, edges[k], before[k], after[k],
        middle, middle, logs, 0.5 * (edges + last)[k],
    )  # fmt: skip
