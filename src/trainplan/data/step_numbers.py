"""Whole numbers that change over a run: batch sizes, crops, frames, lengths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from trainplan.data.shares import resolved
from trainplan.errors import PlanError, nearest
from trainplan.schedules.base import Schedule
from trainplan.schedules.values import count, digest_of, is_number

Whole = npt.NDArray[np.int64]
Round = Literal["nearest"] | None
ROUND: Final = (None, "nearest")
_BLOCK: Final = 1024


class StepNumbers:
    """A whole number for each step, a multiple of another.

    Args:
        value: A number, a schedule, an array with one number per step (the last one holds on), a
            function of the step, or an object with ``value(step)``, such as a controller.
        place: What to call it in errors.
        multiple: Of what they must be multiples.
        round: ``nearest`` takes the nearest multiple; None refuses other numbers.
        steps: Length of the run, for schedules with shares of it.
        units_per_step: The schedules' units per step, if they do not count steps.

    >>> from trainplan.schedules import linear
    >>> crops = StepNumbers(linear(96, 224, duration=4), multiple=32, round="nearest")
    >>> crops.on(np.arange(6)).tolist(), crops(2)
    ([96, 128, 160, 192, 224, 224], 160)
    """

    def __init__(
        self,
        value: Any,
        place: str = "value",
        *,
        multiple: int = 1,
        round: Round = None,
        steps: int | None = None,
        units_per_step: float = 1.0,
    ) -> None:
        if round not in ROUND:
            raise PlanError("unknown", place="round", value=round, remedy=nearest(round, ROUND[1:]))
        self.place, self.round = place, round
        self.multiple = count(multiple, "multiple")
        self.length: int | None = None
        """Numbers in the array, if it is one."""
        self._read, self.digest = self._reader(value, steps, units_per_step)
        self._block: tuple[int, list[int]] | None = (0, [])
        """First step and numbers of some steps, 0 where there is none; None if they may change."""
        if self.length is None and not isinstance(value, Schedule) and not is_number(value):
            self._block = None

    def _reader(
        self, value: Any, steps: int | None, units: float
    ) -> tuple[Callable[[Whole], npt.NDArray[Any]], Any]:
        if isinstance(value, Schedule) or is_number(value):
            schedule = resolved(value, self.place, None if steps is None else steps * units)
            return lambda at: np.asarray(schedule(at * units)), [schedule.digest, units]
        asked = getattr(value, "value", value)
        if callable(asked):
            owner = getattr(asked, "__self__", asked)
            told = owner.plain() if hasattr(owner, "plain") else asked.__qualname__
            return lambda at: np.array([asked(step) for step in at.tolist()]), told
        given = np.asarray(value)
        if given.ndim != 1 or not given.size or given.dtype.kind not in "iuf":
            raise PlanError(
                "no number of each step",
                place=self.place,
                value=value,
                remedy="Give a number, a schedule, an array or a function of the step",
            )
        self.length = given.size
        return lambda at: given[np.minimum(at, given.size - 1)], digest_of(given.tolist())

    def on(self, steps: Whole) -> Whole:
        """(t,) the numbers at some steps.

        Raises:
            PlanError: If one is below 1, or no multiple and not to be rounded; the first is named.
        """
        found, raw = self._numbers(steps)
        wrong = found == 0
        if wrong.any():
            first = int(wrong.argmax())
            raise self._error(int(steps[first]), float(raw[first]))
        return found

    def _numbers(self, steps: Whole) -> tuple[Whole, npt.NDArray[np.float64]]:
        """Numbers at some steps, 0 where there is none, and what they were before rounding."""
        raw = self._read(steps).astype(np.float64)
        found = np.floor(raw / self.multiple + 0.5) * self.multiple
        good = (found >= 1) & np.isfinite(raw)
        if self.round is None:
            good &= found == raw
        return np.where(good, found, 0).astype(np.int64), raw

    def __call__(self, step: int) -> int:
        """The number of a step."""
        if self._block is not None:
            first, known = self._block
            if not first <= step < first + len(known):
                # A block at a time, so that skipping costs nothing.
                first = count(step, "step", least=0) // _BLOCK * _BLOCK
                known = self._numbers(np.arange(first, first + _BLOCK))[0].tolist()
                self._block = (first, known)
            if number := known[step - first]:
                return number
        return int(self.on(np.array([count(step, "step", least=0)]))[0])

    def _error(self, step: int, value: float) -> PlanError:
        what = "whole number" if self.multiple == 1 else f"multiple of {self.multiple}"
        return PlanError(
            f"no {what} above 0 at step {step}",
            place=self.place,
            value=value,
            remedy=nearest_multiples(value, self.multiple)
            + ("" if self.round else ", or give round='nearest'"),
        )


def nearest_multiples(value: float, multiple: int) -> str:
    """The remedy that names the legal numbers around one.

    >>> nearest_multiples(13, 4), nearest_multiples(3, 4)
    ('The nearest are 12 and 16', 'The nearest is 4')
    """
    if not np.isfinite(value):
        return "Keep it finite"
    down = int(value // multiple) * multiple
    if down < 1:
        return f"The nearest is {multiple}"
    return f"The nearest are {down} and {down + multiple}"
