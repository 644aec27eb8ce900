"""Arithmetic on schedules: scale, add, multiply, clip, stretch, shift, repeat, sample."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from trainplan.errors import PlanError, located
from trainplan.schedules.base import Schedule, bracketed
from trainplan.schedules.curves import (
    Chain,
    Curve,
    Cut,
    Cycle,
    Limit,
    Pair,
    Retime,
    Scale,
    Steps,
)
from trainplan.schedules.durations import Duration, Span
from trainplan.schedules.phases import Constant, as_schedule, needs_horizon
from trainplan.schedules.values import count, finite

_TOLERANCE = 1e-12
"""How far, relatively, a time may lie before a sampling time that it is meant to be."""
_MOST_SAMPLES = 10_000_000


@dataclass(frozen=True)
class Scaled(Schedule):
    """A schedule times a number."""

    schedule: Schedule
    factor: float

    infix: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "factor", finite(self.factor, "factor"))

    def compile(self, span: Span) -> Curve:
        return Scale(self.schedule.compile(span), self.factor)

    def freeze(self, at: float, span: Span) -> Schedule:
        return replace(self, schedule=self.schedule.freeze(at, span))

    def plain(self) -> Any:
        return {"scaled": {"schedule": self.schedule.plain(), "factor": self.factor}}

    def __repr__(self) -> str:
        return f"{bracketed(self.schedule)} * {self.factor!r}"


@dataclass(frozen=True)
class Product(Schedule):
    """Two schedules multiplied."""

    left: Schedule
    right: Schedule

    infix: ClassVar[bool] = True

    def compile(self, span: Span) -> Curve:
        return Pair(self.left.compile(span), self.right.compile(span), multiply=True)

    def freeze(self, at: float, span: Span) -> Schedule:
        return Product(self.left.freeze(at, span), self.right.freeze(at, span))

    def plain(self) -> Any:
        return {"product": [self.left.plain(), self.right.plain()]}

    def __repr__(self) -> str:
        return f"{bracketed(self.left)} * {bracketed(self.right)}"


@dataclass(frozen=True)
class Sum(Schedule):
    """Two schedules added."""

    left: Schedule
    right: Schedule

    infix: ClassVar[bool] = True

    def compile(self, span: Span) -> Curve:
        return Pair(self.left.compile(span), self.right.compile(span), multiply=False)

    def freeze(self, at: float, span: Span) -> Schedule:
        return Sum(self.left.freeze(at, span), self.right.freeze(at, span))

    def plain(self) -> Any:
        return {"sum": [self.left.plain(), self.right.plain()]}

    def __repr__(self) -> str:
        return f"{self.left!r} + {bracketed(self.right)}"


@dataclass(frozen=True)
class Clipped(Schedule):
    """A schedule kept between two values; None leaves a side open."""

    schedule: Schedule
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, finite(getattr(self, name), name))
        if self.low is not None and self.high is not None and self.low > self.high:
            raise PlanError(
                "the lower limit is above the upper one", place="low", value=(self.low, self.high)
            )

    def compile(self, span: Span) -> Curve:
        low = -math.inf if self.low is None else self.low
        return Limit(self.schedule.compile(span), low, math.inf if self.high is None else self.high)

    def freeze(self, at: float, span: Span) -> Schedule:
        return replace(self, schedule=self.schedule.freeze(at, span))

    def plain(self) -> Any:
        limits = {"low": self.low, "high": self.high}
        given = {name: value for name, value in limits.items() if value is not None}
        return {"clipped": {"schedule": self.schedule.plain()} | given}

    def __repr__(self) -> str:
        return f"{bracketed(self.schedule)}.clip({self.low!r}, {self.high!r})"


@dataclass(frozen=True)
class Stretched(Schedule):
    """A schedule that lasts ``factor`` times as long."""

    schedule: Schedule
    factor: float

    def __post_init__(self) -> None:
        factor = finite(self.factor, "factor")
        if not 1e-12 <= factor <= 1e12:
            raise PlanError(
                "the factor must be above zero, and reasonable",
                place="factor",
                value=self.factor,
                remedy="Use 1e-12 to 1e12",
            )
        object.__setattr__(self, "factor", factor)

    def compile(self, span: Span) -> Curve:
        inner = span.inner(None if span.length is None else span.length / self.factor)
        return Retime(self.schedule.compile(inner), factor=self.factor)

    def plain(self) -> Any:
        return {"stretched": {"schedule": self.schedule.plain(), "factor": self.factor}}

    def __repr__(self) -> str:
        return f"{bracketed(self.schedule)}.stretch({self.factor!r})"


@dataclass(frozen=True)
class Shifted(Schedule):
    """A schedule that starts later, with its first value until then."""

    schedule: Schedule
    by: Duration

    def __post_init__(self) -> None:
        object.__setattr__(self, "by", Duration.parse(self.by))

    def compile(self, span: Span) -> Curve:
        by = span.measure(self.by)
        inner = span.inner(None if span.length is None else max(0, span.length - by))
        return Retime(self.schedule.compile(inner), delay=by)

    def plain(self) -> Any:
        return {"shifted": {"schedule": self.schedule.plain(), "by": self.by.plain()}}

    def __repr__(self) -> str:
        return f"{bracketed(self.schedule)}.shift({self.by!r})"


@dataclass(frozen=True)
class Repeated(Schedule):
    """A schedule that begins again and again.

    Args:
        schedule: What to repeat.
        every: How long each round is. None is its own length, or, if it is relative, its share
            of the horizon among ``times``.
        times: How many rounds, after which the last value is held; None is for ever.
    """

    schedule: Schedule
    every: Duration | None = None
    times: int | None = None

    def __post_init__(self) -> None:
        if self.every is not None:
            object.__setattr__(self, "every", Duration.parse(self.every))
        if self.times is not None:
            object.__setattr__(self, "times", count(self.times, "times"))

    def compile(self, span: Span) -> Curve:
        period = self._period(span)
        if period <= 0 or not math.isfinite(period):
            raise PlanError(
                "a round must have a length above zero",
                place="every",
                value=period,
                remedy="Give every=..., the length of a round",
            )
        curve = self.schedule.compile(span.inner(period))
        return Cycle(curve, period, math.inf if self.times is None else self.times)

    def _period(self, span: Span) -> float:
        if self.every is not None:
            return span.measure(self.every)
        if not self.schedule.needs_horizon:
            return self.schedule.curve.length
        if span.length is None:
            raise needs_horizon()
        return span.length / (self.times or 1)

    def plain(self) -> Any:
        given: dict[str, Any] = {"schedule": self.schedule.plain()}
        if self.every is not None:
            given["every"] = self.every.plain()
        return {"repeated": given | ({} if self.times is None else {"times": self.times})}

    def __repr__(self) -> str:
        return f"{bracketed(self.schedule)}.repeat({self.every!r}, {self.times!r})"


@dataclass(frozen=True)
class Sampled(Schedule):
    """A schedule that is read at some times only, and held in between.

    Args:
        schedule: The profile.
        at: Sampling times; 0 is always one.
        every: Instead of ``at``: sample after each such duration.
    """

    schedule: Schedule
    at: tuple[Duration, ...] | None = None
    every: Duration | None = None

    def __post_init__(self) -> None:
        if (self.at is None) == (self.every is None):
            raise PlanError("give either at or every", place="at", value=self.at)
        if self.at is not None:
            object.__setattr__(self, "at", tuple(Duration.parse(x) for x in self.at))
        else:
            object.__setattr__(self, "every", Duration.parse(self.every))

    def compile(self, span: Span) -> Curve:
        curve = self.schedule.compile(span)
        exact = replace(span, whole=False)  # a third of the run stays a third
        times = self._times(exact, curve.length)
        edges = [time * (1 - _TOLERANCE) for time in times]
        return Steps(edges, [curve.at(time) for time in times], max(curve.length, times[-1]))

    def _times(self, span: Span, length: float) -> list[float]:
        if self.at is not None:
            return sorted({0.0, *(float(span.measure(x)) for x in self.at)})
        every = span.measure(self.every or Duration(0))
        if not math.isfinite(length):
            raise needs_horizon("every")
        if every <= 0 or length / every > _MOST_SAMPLES:
            raise PlanError(
                f"samples every {every:g} over {length:g} are too many",
                place="every",
                value=self.every,
                remedy="Sample less often, or not at all",
            )
        return [k * every for k in range(math.floor(length / every * (1 + _TOLERANCE)) + 1)]

    def plain(self) -> Any:
        given: dict[str, Any] = {"schedule": self.schedule.plain()}
        if self.at is not None:
            return {"sampled": given | {"at": [x.plain() for x in self.at]}}
        return {"sampled": given | {"every": self.every.plain() if self.every else None}}

    def __repr__(self) -> str:
        how = f"at={list(self.at)!r}" if self.at is not None else f"every={self.every!r}"
        return f"{bracketed(self.schedule)}.sample({how})"


@dataclass(frozen=True)
class Overlaid(Schedule):
    """A schedule with another one put over a stretch of it.

    Args:
        schedule: What goes on below, as if nothing had been.
        over: What is seen from ``at``, for ``duration``, in its own time.
        at: When the stretch begins.
        duration: How long it is.
    """

    schedule: Schedule
    over: Schedule
    at: Duration
    duration: Duration

    def __post_init__(self) -> None:
        for name in ("schedule", "over"):
            object.__setattr__(self, name, as_schedule(getattr(self, name), name))
        for name in ("at", "duration"):
            object.__setattr__(self, name, located(name, Duration.parse, getattr(self, name)))

    def compile(self, span: Span) -> Curve:
        below = self.schedule.compile(span)
        start, length = span.measure(self.at), span.measure(self.duration)
        end = start + length
        over = self.over.compile(span.inner(length))
        parts = [Cut(below, start), Cut(over, length), Retime(below, -end)]
        return Chain(parts, [0, start, end], max(below.length, end))

    def freeze(self, at: float, span: Span) -> Schedule:
        start = Duration(span.measure(self.at))
        length = Duration(span.measure(self.duration))
        below = self.schedule.freeze(at, span)
        begun = start.amount <= at
        return replace(self, schedule=below, at=start, duration=length) if begun else self

    def plain(self) -> Any:
        given = {"schedule": self.schedule.plain(), "over": self.over.plain()}
        return {"overlaid": given | {"at": self.at.plain(), "duration": self.duration.plain()}}


def multiply(left: Schedule, right: Schedule | float) -> Schedule:
    """A schedule times a schedule or a number."""
    if isinstance(right, Schedule):
        return Product(left, right)
    if isinstance(left, Scaled):
        return Scaled(left.schedule, left.factor * finite(right, "factor"))
    return Scaled(left, right)


def add(left: Schedule, right: Schedule | float) -> Schedule:
    """A schedule plus a schedule or a number."""
    return Sum(left, right if isinstance(right, Schedule) else Constant(right))
