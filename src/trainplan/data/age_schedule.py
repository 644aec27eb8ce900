"""How often old tasks come back: as a power of how long ago they were learned.

What people need again falls with its age as a power (Anderson and Schooler, 1991), which has a
longer tail than an exponential. Gandhi, Shah, Marupudi and Varma, 2024, arXiv 2401.10393, train
networks in such environments. Only abstracts could be read: the formulas here are our design.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trainplan.data.mixture import Stage
from trainplan.errors import PlanError, nearest
from trainplan.schedules.values import count, finite

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
KINDS = ("power", "exponential", "uniform", "none")
_SLACK = 1e-9
"""Counts as reached what a decimal number misses by binary rounding: 0.1 x 200 is 20."""


@dataclass(frozen=True)
class AgeSchedule:
    """The weight of a task by its age in phases; the task that is being learned has age 1.

    power: g(a) = a^-b; exponential: g(a) = exp(-b (a - 1)); uniform: g(a) = 1; none: only age 1.

    Args:
        kind: One of those, or a function from ages (an array from 1 on) to weights not below 0.
        b: How fast it falls, not below 0; 0 is uniform. By default 1 for power (0.5 is the
            cognitive exponent) and 0.7 for exponential.

    Raises:
        PlanError: If the kind is unknown or b below 0.

    >>> schedule = AgeSchedule("power", b=1.0)
    >>> schedule.weights(4).round(3).tolist()
    [0.12, 0.16, 0.24, 0.48]
    >>> schedule.quotas(100, phase=5).tolist(), schedule.rehearsal(200, phase=5).tolist()
    ([9, 11, 14, 22, 44], [12, 16, 24, 48])
    """

    kind: str | Callable[[Floats], Any] = "power"
    b: float | None = None

    def __post_init__(self) -> None:
        if not callable(self.kind) and self.kind not in KINDS:
            remedy = nearest(str(self.kind), KINDS)
            raise PlanError("unknown", place="kind", value=self.kind, remedy=remedy)
        default = 0.7 if self.kind == "exponential" else 1.0
        b = default if self.b is None else finite(self.b, "b")
        if b < 0:
            remedy = "Give 0 for uniform, or more"
            raise PlanError("old tasks would come more often", place="b", value=b, remedy=remedy)
        object.__setattr__(self, "b", b)

    def at(self, ages: Any) -> Floats:
        """G at some ages, which begin with 1.

        Raises:
            PlanError: If an age is below 1, or a function of the user's gives no weights.
        """
        a = np.asarray(ages, dtype=np.float64)
        if a.size and a.min() < 1:
            raise PlanError("ages begin with 1", place="ages", value=float(a.min()))
        assert self.b is not None  # noqa: S101 - set above
        if callable(self.kind):
            found = np.broadcast_to(np.asarray(self.kind(a), dtype=np.float64), a.shape)
            if not (np.isfinite(found).all() and (found >= 0).all()):
                raise PlanError("weights are not below 0 and finite", place="kind", value=found)
            return found
        if self.kind == "power":
            falling: Floats = np.power(a, -self.b)
            return falling
        if self.kind == "exponential":
            return np.asarray(np.exp(-self.b * (a - 1)))
        return np.ones_like(a) if self.kind == "uniform" else (a == 1).astype(np.float64)

    def weights(self, phase: int, ages: Any = None) -> Floats:
        """(k,) probability that an example of phase k is from task 1..k; the last is the new one.

        Args:
            phase: k, from 1 on.
            ages: (k,) ages to use instead of k, k - 1, ..., 1.
        """
        k = count(phase, "phase")
        found = self.at(np.arange(k, 0, -1) if ages is None else ages)
        if not found.sum() > 0:
            raise PlanError("no task has a weight above 0", place="kind", value=self.kind)
        shares: Floats = found / found.sum()
        return shares

    def quotas(self, n: int, phase: int, ages: Any = None) -> Counts:
        """(k,) examples of each task in a phase of n: largest remainders, ties to the newer task.

        A share below half an example may come to nothing; draw tasks at random to avoid it.
        """
        return largest_remainder(count(n, "n", least=0), self.weights(phase, ages))

    def rehearsal(self, n: int, phase: int, ratio: float = 0.5, lags: Any = None) -> Counts:
        """(k-1,) old examples beside n new ones: floor(ratio n), shared out by g of the lag.

        Args:
            n: Examples of the new task.
            phase: k, from 1 on.
            ratio: Old examples for each new one, not below 0.
            lags: (k-1,) lags to use instead of k - 1, ..., 1.
        """
        k, share = count(phase, "phase"), finite(ratio, "ratio")
        if share < 0:
            raise PlanError("cannot be below 0", place="ratio", value=ratio)
        if k == 1 or self.kind == "none":
            return np.zeros(k - 1, np.int64)
        number = math.floor(share * count(n, "n", least=0) + _SLACK)
        found = self.at(np.arange(k - 1, 0, -1) if lags is None else lags)
        if not found.sum() > 0:
            raise PlanError("no old task has a weight above 0", place="kind", value=self.kind)
        return largest_remainder(number, found / found.sum())

    def stages(self, names: Sequence[str], length: float) -> list[Stage]:
        """A stage for each phase, as the weights of a `Mixture` of the tasks.

        Args:
            names: Of the tasks, in the order in which they are learned.
            length: Of a phase, in the plan's unit.

        >>> [dict(stage.weights) for stage in AgeSchedule("power").stages(["a", "b"], 100)]
        [{'a': 1.0, 'b': 0.0}, {'a': 0.3333333333333333, 'b': 0.6666666666666666}]
        """
        return [
            Stage(
                length,
                dict.fromkeys(names, 0.0)
                | dict(zip(names[:k], self.weights(k).tolist(), strict=True)),
            )
            for k in range(1, len(names) + 1)
        ]


def largest_remainder(n: int, shares: Floats) -> Counts:
    """Whole numbers that add up to n and are less than 1 away from n times the shares.

    What is left after cutting down goes to the largest remainders, and among equal ones (to nine
    decimals) to the last.

    >>> largest_remainder(20, np.full(6, 1 / 6)).tolist()
    [3, 3, 3, 3, 4, 4]
    """
    exact = n * shares
    whole = np.floor(exact + _SLACK).astype(np.int64)
    remainders = np.round(exact - whole, 9)
    last_first = np.lexsort((-np.arange(len(shares)), -remainders))
    whole[last_first[: n - int(whole.sum())]] += 1
    return whole
