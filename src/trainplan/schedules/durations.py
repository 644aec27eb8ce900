"""Durations: how long a phase lasts, in the plan's unit or relative to the whole.

A duration is written as a number (in the unit of the plan), a percentage of the enclosing
schedule ("10%"), or an amount with a unit ("2B tokens", "3 epochs", "2000 steps").
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from numbers import Integral
from typing import Any, Final

from trainplan.errors import PlanError, nearest
from trainplan.schedules.values import is_number

UNITS: Final = ("steps", "tokens", "samples", "epochs")
LARGEST: Final = 2**53
"""Steps are counted in float64, which holds every whole number up to this one."""

_MULTIPLIERS: Final = {
    "": 1,
    "k": 10**3,
    "K": 10**3,
    "M": 10**6,
    "B": 10**9,
    "G": 10**9,
    "T": 10**12,
}
_PATTERN: Final = re.compile(
    # Longer numbers and exponents are mistakes, and would take exact arithmetic for ever.
    r"\s*(?P<amount>(?:[0-9][0-9_]{0,39}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,3})?)"
    r"\s*(?P<multiplier>[kKMBGT]?)\s*(?P<unit>%|[a-z]*)\s*"
)
_HOW: Final = "Write a number, a percentage like '10%', or an amount like '2B tokens' or '3 epochs'"


@dataclass(frozen=True)
class Duration:
    """An amount of training.

    Attributes:
        amount: Zero or more; a percentage is held as the number before the sign.
        unit: One of ``steps``, ``tokens``, ``samples``, ``epochs``; ``%`` of the enclosing
            schedule; or empty, the unit of the plan.
    """

    amount: int | float
    unit: str = ""

    @classmethod
    def parse(cls, value: Any) -> Duration:
        """Read a duration as people write it.

        >>> Duration.parse("2B tokens")
        '2000000000 tokens'
        >>> Duration.parse(2000.0)
        2000
        """
        if isinstance(value, Duration):
            return value
        if isinstance(value, str):
            return cls._from_text(value)
        if not is_number(value):
            raise PlanError("not a duration", value=value, remedy=_HOW)
        return cls(_amount(value, value))

    @classmethod
    def _from_text(cls, text: str) -> Duration:
        match = _PATTERN.fullmatch(text)
        if match is None:
            remedy = "Durations are not negative" if text.strip().startswith("-") else _HOW
            raise PlanError("not a duration", value=text, remedy=remedy)
        exact = Fraction(match["amount"].replace("_", "")) * _MULTIPLIERS[match["multiplier"]]
        unit = match["unit"]
        if unit and unit != "%":
            plural = unit if unit.endswith("s") else unit + "s"
            if plural not in UNITS:
                raise PlanError("unknown unit", value=text, remedy=nearest(unit, UNITS))
            unit = plural
        if unit == "%" and exact > 100:
            raise PlanError(
                "more than 100 % of the whole", value=text, remedy="Use 0% to 100%, or an amount"
            )
        return cls(_amount(exact, text), unit)

    @property
    def relative(self) -> bool:
        """Whether it is a share of the enclosing schedule."""
        return self.unit == "%"

    def plain(self) -> int | float | str:
        """As it stands in a plan file.

        >>> Duration.parse("10 %").plain()
        '10%'
        """
        if not self.unit:
            return self.amount
        return f"{self.amount}{'' if self.relative else ' '}{self.unit}"

    def __repr__(self) -> str:
        return repr(self.plain())

    def __str__(self) -> str:
        return str(self.plain())


def _amount(value: Any, shown: Any) -> int | float:
    if isinstance(value, Integral):
        number: int | float = int(value)
    elif isinstance(value, Fraction):
        number = int(value) if value.denominator == 1 else float(value)
    else:
        number = float(value)
        if not math.isfinite(number):
            raise PlanError("a duration must be finite", value=shown, remedy=_HOW)
        number = int(number) if number.is_integer() else number
    if number < 0:
        raise PlanError("a duration cannot be negative", value=shown, remedy="Use zero or more")
    if number > LARGEST:
        raise PlanError(
            "longer than 2^53, past which steps cannot be told apart",
            value=shown,
            remedy="Count in a coarser unit",
        )
    return number


@dataclass(frozen=True)
class Span:
    """The time that an enclosing schedule has, in which relative durations are resolved.

    Attributes:
        length: How long, in ``unit``; None if it is not known.
        unit: The unit that ``t`` counts.
        rates: Steps per epoch and tokens or samples per step, as far as they are known, under
            the names ``steps_per_epoch``, ``tokens_per_step``, ``samples_per_step``.
        whole: Whether relative durations are cut down to whole units.
    """

    length: int | float | None
    unit: str = "steps"
    rates: Mapping[str, float] = field(default_factory=dict)
    whole: bool = False

    @classmethod
    def of(
        cls,
        horizon: int | float | None,
        unit: str = "steps",
        rates: Mapping[str, float] | None = None,
    ) -> Span:
        """The span of a run. Whole units are counted if ``horizon`` is a whole number."""
        if unit not in UNITS:
            raise PlanError("unknown unit", place="unit", value=unit, remedy=nearest(unit, UNITS))
        length = None if horizon is None else parse_horizon(horizon)
        whole = isinstance(length, int) and unit != "epochs"
        return cls(length, unit, dict(rates or {}), whole)

    def inner(self, length: float | None) -> Span:
        """The span of a schedule inside this one."""
        return Span(length, self.unit, self.rates, self.whole)

    def measure(self, duration: Duration) -> int | float:
        """The duration in this span's unit.

        Raises:
            PlanError: If it is relative and the length is unknown, or if its unit cannot be
                converted because the rate between the two is unknown.
        """
        if duration.relative:
            return self._share(duration)
        if not duration.unit or duration.unit == self.unit:
            return duration.amount
        try:
            exact = self._convert(duration.amount, duration.unit, self.unit)
        except PlanError as error:
            problem, remedy = error.problem, error.remedy
            raise PlanError(problem, value=duration.plain(), remedy=remedy) from None
        return _cut(exact, self.whole)

    def convert(self, amount: float, unit: str, to: str) -> float:
        """An amount in another unit.

        Raises:
            PlanError: If the rate between the two is unknown.
        """
        for name in (unit, to):
            if name not in UNITS:
                raise PlanError("unknown unit", value=name, remedy=nearest(name, UNITS))
        return float(amount if unit == to else self._convert(amount, unit, to))

    def _convert(self, amount: float, unit: str, to: str) -> Fraction:
        exact = _exact(amount) * self._steps(unit, to) / self._steps(to, unit)
        if exact > LARGEST:
            raise PlanError(
                f"more than 2^53 {to}, past which they cannot be told apart",
                value=f"{amount} {unit}",
                remedy="Count in a coarser unit",
            )
        return exact

    def _share(self, duration: Duration) -> int | float:
        if self.length is None:
            raise PlanError(
                "a relative duration needs a horizon",
                value=duration.plain(),
                remedy="Call .resolve(horizon), put the schedule into a Plan with a horizon, "
                "or write the duration as a number",
            )
        return _cut(_exact(duration.amount) / 100 * _exact(self.length), self.whole)

    def _steps(self, unit: str, other: str) -> Fraction:
        """How many steps one ``unit`` is."""
        if unit == "steps":
            return Fraction(1)
        name = "steps_per_epoch" if unit == "epochs" else f"{unit}_per_step"
        rate = self.rates.get(name)
        if rate is None:
            raise PlanError(
                f"{unit} cannot be converted to or from {other}",
                remedy=f"Give {name}=... to the plan (or to resolve), or write the duration in "
                f"{self.unit}",
            )
        return _exact(rate) if unit == "epochs" else 1 / _exact(rate)


def optional_duration(value: Any, place: str) -> Duration | None:
    """``value`` as a duration, or None."""
    try:
        return None if value is None else Duration.parse(value)
    except PlanError as error:
        raise error.inside(place) from None


def parse_horizon(value: Any) -> int | float:
    """Check a horizon: a finite number above zero and at most 2^53."""
    if not is_number(value):
        raise PlanError(
            "the horizon must be a number", place="horizon", value=value, remedy="Give its length"
        )
    try:
        number = _amount(value, value)
    except PlanError as error:
        raise error.inside("horizon") from None
    if number == 0:
        raise PlanError(
            "the horizon must be above zero", place="horizon", value=value, remedy="Give its length"
        )
    return number


def _exact(value: float) -> Fraction:
    """The decimal number that was written, not its binary neighbour: 10 % of 30 is 3."""
    return Fraction(value) if isinstance(value, int) else Fraction(repr(float(value)))


def _cut(exact: Fraction, whole: bool) -> int | float:
    if whole or exact.denominator == 1:
        return math.floor(exact)
    return float(exact)
