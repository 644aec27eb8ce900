"""Phases and sequences of phases, of which nearly every published schedule is made.

    Sequence(Phase(0.0, 1e-3, "2%"), Hold(), Phase(None, 0.0, "20%", "1-sqrt"))

is warm-up, stable, decay: a phase without a duration takes what the others leave, and a value of
None goes on from the phase before (or up to the one after).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from trainplan.errors import PlanError, located, nearest
from trainplan.schedules.base import Schedule
from trainplan.schedules.curves import (
    Chain,
    Curve,
    Cut,
    Flat,
    Geometric,
    Power,
    Retime,
    Sigmoid,
    Steps,
    Table,
    power,
)
from trainplan.schedules.durations import LARGEST, UNITS, Duration, Span, optional_duration
from trainplan.schedules.shapes import Linear, Shape, parse_shape
from trainplan.schedules.values import finite, is_number


@dataclass(frozen=True)
class Constant(Schedule):
    """One value for ever.

    >>> Constant(0.1)(10**6)
    0.1
    """

    value: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", finite(self.value, "value"))

    def compile(self, span: Span) -> Curve:
        return Flat(self.value)

    def plain(self) -> Any:
        return self.value


@dataclass(frozen=True)
class PowerLaw(Schedule):
    """``min(cap, coefficient * t ** exponent)``, for ever.

    Args:
        coefficient: Above 0.
        exponent: Any finite number; a negative one needs a cap, which is the value at ``t = 0``.
        cap: The largest value.
        unit: What the law counts, such as ``tokens``; by default the unit of the plan.
    """

    coefficient: float
    exponent: float
    cap: float | None = None
    unit: str | None = None

    def __post_init__(self) -> None:
        for name in ("coefficient", "exponent") + (() if self.cap is None else ("cap",)):
            value = finite(getattr(self, name), name)
            if name != "exponent" and value <= 0:
                raise PlanError(f"the {name} must be above zero", place=name, value=value)
            object.__setattr__(self, name, value)
        if self.unit is not None and self.unit not in UNITS:
            remedy = nearest(self.unit, UNITS)
            raise PlanError("unknown unit", place="unit", value=self.unit, remedy=remedy)
        if self.exponent < 0 and self.cap is None:
            raise PlanError(
                "a falling power law is infinite at t = 0",
                place="cap",
                value=None,
                remedy="Give cap=..., its largest value",
            )

    def compile(self, span: Span) -> Curve:
        scale = 1.0 if self.unit is None else span.convert(1, span.unit, self.unit)
        cap = math.inf if self.cap is None else self.cap
        return Power(self.coefficient * power(scale, self.exponent), self.exponent, cap)

    def plain(self) -> Any:
        given: dict[str, Any] = {"coefficient": self.coefficient, "exponent": self.exponent}
        if self.cap is not None:
            given["cap"] = self.cap
        return {"power_law": given if self.unit is None else given | {"unit": self.unit}}


@dataclass(frozen=True)
class InverseSigmoid(Schedule):
    """``start * k / (k + exp(t / k))``, for ever: it holds, and falls to 0 around ``t = k log k``.

    One of the decays of scheduled sampling (Bengio et al., 2015, arXiv 1506.03099).

    Args:
        start: What it comes from; the value at ``t = 0`` is ``start * k / (k + 1)``.
        k: Above 0.

    >>> round(InverseSigmoid(1.0, 100.0)(461), 2)
    0.5
    """

    start: float
    k: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", finite(self.start, "start"))
        object.__setattr__(self, "k", finite(self.k, "k"))
        if self.k <= 0:
            raise PlanError("k must be above zero", place="k", value=self.k)

    def compile(self, span: Span) -> Curve:
        return Sigmoid(self.start, self.k * math.log(self.k), self.k)

    def plain(self) -> Any:
        return {"inverse_sigmoid": {"start": self.start, "k": self.k}}


@dataclass(frozen=True)
class Stairs(Schedule):
    """``value * factor ** floor(t / every)``, for ever.

    >>> Stairs(1.0, 0.5, 10)(25)
    0.25
    """

    value: float
    factor: float
    every: Duration

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", finite(self.value, "value"))
        object.__setattr__(self, "factor", finite(self.factor, "factor"))
        if self.factor < 0:
            raise PlanError("the factor is below zero", place="factor", value=self.factor)
        every = optional_duration(self.every, "every")
        if every is None or every.amount == 0:
            raise PlanError("a step needs a length above zero", place="every", value=self.every)
        object.__setattr__(self, "every", every)

    def compile(self, span: Span) -> Curve:
        every = span.measure(self.every)
        if every <= 0 or not math.isfinite(LARGEST / every):
            raise PlanError("shorter than one unit", place="every", value=self.every.plain())
        return Geometric(self.value, self.factor, every)

    def plain(self) -> Any:
        given = {"value": self.value, "factor": self.factor, "every": self.every.plain()}
        return {"stairs": given}


@dataclass(frozen=True)
class Phase(Schedule):
    """From one value to another in a given shape.

    Args:
        start: Value at the beginning; None goes on from where the phase before ended.
        end: Value reached at the end and held from then on; None goes to where the next begins.
        duration: How long; None takes what the other phases of the sequence leave (or the whole
            horizon).
        shape: The curve between the two, see `trainplan.schedules.shapes`.
        until: Instead of ``duration``: when it ends, measured from the start of the sequence.
        ahead: How far ahead of time the curve is read: a warm-up that is one step ahead starts
            one step above ``start`` and reaches ``end`` one step early.

    >>> Phase(0.0, 1.0, 10)(5), Phase(0.0, 1.0, 10, ahead=1)(5)
    (0.5, 0.6)
    """

    start: float | None
    end: float | None
    duration: Duration | None = None
    shape: Shape = Linear()  # noqa: RUF009 - frozen
    until: Duration | None = None
    ahead: Duration = Duration(0)  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, finite(value, name))
        object.__setattr__(self, "shape", _shape(self.shape))
        object.__setattr__(self, "ahead", optional_duration(self.ahead, "ahead") or Duration(0))
        _set_length(self)
        if self.start is not None and self.end is not None:
            self.shape.bind(self.start, self.end)

    def compile(self, span: Span) -> Curve:
        if self.start is None or self.end is None:
            name = "start" if self.start is None else "end"
            raise PlanError(
                f"a phase with {name}=None takes its value from its neighbour in a Sequence",
                place=name,
                value=None,
                remedy="Give the value, or put the phase into a Sequence",
            )
        return self.between(self.start, self.end, _alone(self, span), span)

    def between(self, start: float, end: float, length: float, span: Span) -> Curve:
        """The phase with its values and its length known."""
        if not math.isfinite(length) and not self.shape.open_ended:
            raise needs_horizon()
        curve = self.shape.curve(start, end, length)
        return Retime(curve, -span.measure(self.ahead)) if self.ahead.amount else curve

    @property
    def open_ended(self) -> bool:
        """Whether it can go on for ever without a horizon."""
        return self.shape.open_ended

    def plain(self) -> Any:
        return {"phase": self.item()}

    def item(self) -> dict[str, Any]:
        """As it stands in a list of phases."""
        given: dict[str, Any] = {}
        for name in ("start", "end"):
            if getattr(self, name) is not None:
                given[name] = getattr(self, name)
        given |= _plain_length(self)
        if self.ahead.amount:
            given["ahead"] = self.ahead.plain()
        return given if self.shape == Linear() else given | {"shape": self.shape.plain()}


@dataclass(frozen=True)
class Hold(Schedule):
    """One value for a while.

    Args:
        value: None goes on with the value that the phase before ended with.
        duration: How long; None takes what the other phases of the sequence leave.
        until: Instead of ``duration``: when it ends, measured from the start of the sequence.
    """

    value: float | None = None
    duration: Duration | None = None
    until: Duration | None = None

    open_ended = True

    def __post_init__(self) -> None:
        if self.value is not None:
            object.__setattr__(self, "value", finite(self.value, "value"))
        _set_length(self)

    def compile(self, span: Span) -> Curve:
        if self.value is None:
            raise PlanError(
                "a Hold without a value goes on from the phase before",
                place="value",
                value=None,
                remedy="Give the value, or put it after another phase in a Sequence",
            )
        return Flat(self.value, _alone(self, span))

    def plain(self) -> Any:
        return self.item()

    def item(self) -> dict[str, Any]:
        """As it stands in a list of phases."""
        given = {} if self.value is None else {"value": self.value}
        return {"hold": given | _plain_length(self)}


@dataclass(frozen=True)
class Take(Schedule):
    """A stretch of another schedule, in that schedule's own time.

    Its relative durations are shares of the stretch.

    Args:
        schedule: What to play.
        duration: How long; None takes what the other phases of the sequence leave.
        skip: How much of its beginning to leave out.
        until: Instead of ``duration``: when it ends, measured from the start of the sequence.
    """

    schedule: Schedule
    duration: Duration | None = None
    skip: Duration = Duration(0)  # noqa: RUF009 - frozen
    until: Duration | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "schedule", as_schedule(self.schedule))
        object.__setattr__(self, "skip", located("skip", Duration.parse, self.skip))
        _set_length(self)

    @property
    def open_ended(self) -> bool:
        """Whether it can go on for ever without a horizon."""
        return not self.schedule.needs_horizon

    def compile(self, span: Span) -> Curve:
        return self.within(span, _alone(self, span))

    def within(self, span: Span, length: float) -> Curve:
        """The stretch with its length known."""
        skip = span.measure(self.skip)
        known = length + skip if math.isfinite(length) else None
        curve = self.schedule.compile(span.inner(known))
        if skip:
            curve = Retime(curve, -skip)
        return Cut(curve, length)

    def plain(self) -> Any:
        return {"take": self.item()}

    def item(self) -> dict[str, Any]:
        """As it stands in a list of phases."""
        given = {"schedule": self.schedule.plain()} | _plain_length(self)
        return given | ({"skip": self.skip.plain()} if self.skip.amount else {})


Piece = Phase | Hold | Take
"""What a sequence is made of."""


@dataclass(frozen=True, init=False)
class Sequence(Schedule):
    """Phases one after the other. A boundary belongs to the later phase.

    At most one phase may be without a duration; it takes what the others leave of the horizon.
    Past the end the last value is held.

    >>> wsd = Sequence(Phase(0.0, 1.0, "10%"), Hold(), Phase(None, 0.0, "20%"))
    >>> wsd.resolve(100)([0, 5, 10, 80, 90, 100]).tolist()
    [0.0, 0.5, 1.0, 1.0, 0.5, 0.0]
    """

    pieces: tuple[Piece, ...]

    def __init__(self, *pieces: Piece) -> None:
        if not pieces:
            raise PlanError("a sequence needs at least one phase", place="phases", value=[])
        for i, piece in enumerate(pieces):
            if not isinstance(piece, (Phase, Hold, Take)):
                raise PlanError(
                    "not a phase",
                    place=f"phases[{i}]",
                    value=piece,
                    remedy="Use Phase, Hold, or Take(schedule, duration)",
                )
        object.__setattr__(self, "pieces", tuple(pieces))
        self._check_neighbours()

    def _check_neighbours(self) -> None:
        free = [i for i, p in enumerate(self.pieces) if p.duration is None and p.until is None]
        if len(free) > 1:
            raise PlanError(
                f"phases {free[0]} and {free[1]} both take what is left",
                place=f"phases[{free[1]}].duration",
                value=None,
                remedy="Give all phases but one a duration",
            )
        if free and (late := [i for i in range(free[0], len(self.pieces)) if self.pieces[i].until]):
            raise PlanError(
                f"phase {free[0]} takes what is left, so a later one cannot end at a given time",
                place=f"phases[{late[0]}].until",
                value=self.pieces[late[0]].until,
                remedy=f"Give phase {free[0]} a duration or an until",
            )
        for i, (a, b) in enumerate(pairwise((None, *self.pieces, None))):
            if _open_end(a) and (b is None or _open_start(b)):
                raise _no_value(i - 1, "end")
            if b is not None and _open_start(b) and a is None:
                raise _no_value(i, "start" if isinstance(b, Phase) else "value")

    def lengths(self, span: Span) -> list[int | float]:
        """How long each phase lasts in a span."""
        known: list[int | float | None] = []
        position: int | float | None = 0
        for i, piece in enumerate(self.pieces):
            length = _length_in(piece, i, position, span)
            known.append(length)
            position = None if position is None or length is None else position + length
        if None not in known:
            return known  # type: ignore[return-value]
        free = known.index(None)
        return [self._rest(free, known, span) if x is None else x for x in known]

    def _rest(self, free: int, known: list[int | float | None], span: Span) -> int | float:
        others = sum(x for x in known if x is not None)
        if span.length is None:
            last = free == len(known) - 1
            if last and self.pieces[free].open_ended:
                return math.inf
            raise needs_horizon(f"phases[{free}].duration")
        rest = span.length - others
        if rest < 0:
            lengths = ", ".join(str(p.duration or p.until or "the rest") for p in self.pieces)
            raise PlanError(
                f"the phases ({lengths}) last {others:g}, longer than the whole, {span.length:g}",
                place="phases",
                value=f"{others:g} > {span.length:g}",
                remedy="Shorten them, or lengthen the horizon",
            )
        return rest

    def compile(self, span: Span) -> Curve:
        lengths = self.lengths(span)
        starts: list[int | float] = [0]
        for length in lengths:
            starts.append(starts[-1] + length)
        curves: list[Curve | None] = [None] * len(lengths)
        # A Take knows its own values, and so it goes first; a phase may begin where it ends.
        order = sorted(range(len(lengths)), key=lambda i: not isinstance(self.pieces[i], Take))
        for i in order:
            before = curves[i - 1] if i else None
            after = curves[i + 1] if i + 1 < len(curves) else None
            curves[i] = self._curve(i, lengths[i], before, after, span)
        parts = [curve for curve in curves if curve is not None]
        return parts[0] if len(parts) == 1 else Chain(parts, starts[:-1], starts[-1])

    def _curve(
        self, i: int, length: float, before: Curve | None, after: Curve | None, span: Span
    ) -> Curve:
        piece = self.pieces[i]
        last = before.last if before else None
        if isinstance(piece, Hold):
            return Flat(_given(piece.value, last), length)
        if isinstance(piece, Phase):
            follower = self.pieces[i + 1] if i + 1 < len(self.pieces) else None
            start = _given(piece.start, last)
            end = _given(piece.end, after.first if after else _first_value(follower))
            return located(f"phases[{i}]", piece.between, start, end, length, span)
        return located(f"phases[{i}]", piece.within, span, length)

    def freeze(self, at: float, span: Span) -> Schedule:
        position: int | float = 0
        pieces: list[Piece] = []
        for piece, length in zip(self.pieces, self.lengths(span), strict=True):
            position += length
            # A phase that takes what is left and ends just now may still be prolonged.
            fixed = piece.duration is not None or piece.until is not None
            past = position < at or (position == at and fixed)
            pieces.append(replace(piece, duration=Duration(length), until=None) if past else piece)
        return Sequence(*pieces)

    def plain(self) -> Any:
        return {"phases": [piece.item() for piece in self.pieces]}

    def __repr__(self) -> str:
        return f"Sequence({', '.join(map(repr, self.pieces))})"


@dataclass(frozen=True)
class Profile(Schedule):
    """A curve given by its values at even spacing, drawn out over its duration.

    Args:
        values: Two or more values.
        duration: How long; None is the whole horizon.
        hold: Hold each value until the next (``n`` equal stretches) instead of drawing straight
            lines between them (``n - 1`` stretches).

    >>> Profile([0.0, 1.0, 0.0], 10)(2.5)
    0.5
    """

    values: tuple[float, ...]
    duration: Duration | None = None
    hold: bool = False

    def __post_init__(self) -> None:
        values = tuple(finite(x, f"values[{i}]") for i, x in enumerate(self.values))
        if len(values) < 2:
            raise PlanError("a profile needs two values or more", place="values", value=values)
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "duration", optional_duration(self.duration, "duration"))

    def compile(self, span: Span) -> Curve:
        if self.duration is None and span.length is None:
            raise needs_horizon()
        length = span.measure(self.duration) if self.duration else span.length or 0
        if not self.hold:
            return Table(self.values, length)
        n = len(self.values)
        return Steps([i * length / n for i in range(n)], self.values, length)

    def plain(self) -> Any:
        given: dict[str, Any] = {"values": list(self.values)}
        if self.duration is not None:
            given["duration"] = self.duration.plain()
        return {"profile": given | ({"hold": True} if self.hold else {})}


def as_schedule(value: Any, place: str = "schedule") -> Schedule:
    """A schedule, or a number as one."""
    if isinstance(value, Schedule):
        return value
    if is_number(value):
        return Constant(value)
    raise PlanError("neither a schedule nor a number", place=place, value=value)


def needs_horizon(place: str = "") -> PlanError:
    """The error for a schedule that takes what is left of an unknown whole."""
    return PlanError(
        "this schedule fills a horizon that is not known",
        place=place,
        remedy="Call .resolve(horizon), put it into a Plan with a horizon, or give a duration",
    )


def _shape(value: Any) -> Shape:
    try:
        return parse_shape(value)
    except PlanError as error:
        raise error if error.place.startswith("shape") else error.inside("shape") from None


def _set_length(piece: Piece) -> None:
    for name in ("duration", "until"):
        object.__setattr__(piece, name, optional_duration(getattr(piece, name), name))
    if piece.duration is not None and piece.until is not None:
        raise PlanError(
            "a phase has a duration or an until, not both",
            place="until",
            value=piece.until,
            remedy="Leave one of them out",
        )


def _plain_length(piece: Piece) -> dict[str, Any]:
    names = ("duration", "until")
    return {n: getattr(piece, n).plain() for n in names if getattr(piece, n) is not None}


def _alone(piece: Piece, span: Span) -> float:
    """The length of a phase that stands outside a sequence."""
    length = piece.duration or piece.until
    if length is not None:
        return span.measure(length)
    if span.length is not None:
        return span.length
    if piece.open_ended:
        return math.inf
    raise needs_horizon()


def _length_in(
    piece: Piece, i: int, position: int | float | None, span: Span
) -> int | float | None:
    """The length of a phase that begins at ``position`` in a sequence; None if it is the rest."""
    if piece.duration is not None:
        return located(f"phases[{i}]", span.measure, piece.duration)
    if piece.until is None or position is None:
        return None
    end = located(f"phases[{i}]", span.measure, piece.until)
    if end < position:
        raise PlanError(
            f"the phase ends at {end:g}, before it begins at {position:g}",
            place=f"phases[{i}].until",
            value=piece.until.plain(),
            remedy="End it later, or shorten the phases before it",
        )
    return end - position


def _open_start(piece: Piece | None) -> bool:
    """Whether a piece waits for a value from the one before."""
    if isinstance(piece, Phase):
        return piece.start is None
    return isinstance(piece, Hold) and piece.value is None


def _open_end(piece: Piece | None) -> bool:
    """Whether a piece waits for a value from the one after."""
    return isinstance(piece, Phase) and piece.end is None


def _first_value(piece: Piece | None) -> float | None:
    return piece.value if isinstance(piece, Hold) else getattr(piece, "start", None)


def _given(value: float | None, neighbour: float | None) -> float:
    """A phase's own value, or that of its neighbour; `Sequence` has checked that there is one."""
    known = neighbour if value is None else value
    if known is None:
        raise TypeError("a phase without a value has no neighbour that has one")
    return known


def _no_value(i: int, name: str) -> PlanError:
    return PlanError(
        "has no neighbour to take its value from",
        place=f"phases[{i}].{name}",
        value=None,
        remedy="Give the value",
    )
