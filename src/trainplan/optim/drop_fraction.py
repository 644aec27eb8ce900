"""Which share of its weights a sparse layer drops at a re-wiring: a knob like any other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trainplan.errors import PlanError
from trainplan.schedules import cosine
from trainplan.schedules.base import Schedule
from trainplan.schedules.values import finite

PUBLISHED = cosine(0.5, end=0.005)
"""From half to almost nothing along a cosine, over the length of a task."""
KNOB = "drop_fraction"


class DropFraction:
    """A schedule over the updates of one task, or a plan's knob in the optimizer's groups.

    Args:
        given: A schedule, a number in [0, 1], or None for the knob ``drop_fraction`` of the
            optimizer's groups, which is 0.5 until a plan drives it.

    >>> fraction = DropFraction(PUBLISHED)
    >>> fraction.begin(100)
    >>> [round(fraction(steps, []), 4) for steps in (0, 50, 100, 110)]
    [0.5, 0.2525, 0.005, 0.005]
    """

    def __init__(self, given: Schedule | float | None) -> None:
        if given is not None and not isinstance(given, Schedule):
            value = finite(given, KNOB)
            if not 0 <= value <= 1:
                remedy = "Write 0.3 to drop 30 % of the active weights"
                raise PlanError("a share lies in [0, 1]", place=KNOB, value=given, remedy=remedy)
            given = cosine(value, end=value, duration=1)
        self._given = given
        self._ready = given

    @property
    def planned(self) -> bool:
        """Whether it is left to a plan."""
        return self._given is None

    def begin(self, length: int) -> None:
        """Start again for a task of so many updates; 0 if that is unknown.

        Raises:
            PlanError: If the schedule has relative durations and the length is unknown.
        """
        if self._given is None:
            return
        if length:
            self._ready = self._given.resolve(length)
            return
        try:
            self._given(0)
        except PlanError as error:
            remedy = "Give begin(task, steps=...), or a drop_fraction with absolute durations"
            raise PlanError(error.problem, place="steps", value=0, remedy=remedy) from None

    def __call__(self, steps: int, groups: Sequence[Mapping[str, Any]]) -> float:
        """The share after so many updates of the task, cut to [0, 1]."""
        value = groups[0].get(KNOB, 0.5) if self._ready is None else self._ready(steps)
        return min(max(float(value), 0.0), 1.0)

    def offer(self, groups: Sequence[dict[str, Any]]) -> None:
        """Put the knob where a plan can drive it."""
        for group in groups if self.planned else ():
            group.setdefault(KNOB, 0.5)
