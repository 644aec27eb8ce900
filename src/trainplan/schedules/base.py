"""What every schedule can do: be evaluated, combined, resolved, compared, written and drawn."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar, overload

import numpy as np

from trainplan.errors import PlanError, nearest
from trainplan.schedules.curves import Array, Curve
from trainplan.schedules.durations import LARGEST, Duration, Span, parse_horizon
from trainplan.schedules.values import digest_of, rate

if TYPE_CHECKING:
    from trainplan.schedules.algebra import Clipped, Repeated, Sampled, Shifted, Stretched

_UNKNOWN = Span(None)
_CHUNK = 1 << 15


class Schedule(ABC):
    """A value as a pure function of time.

    ``schedule(t)`` takes a number and returns a float, or takes a NumPy array, torch tensor or
    JAX array (traced ones too) of times and returns the values in the same kind. ``t`` counts
    completed units (steps, unless the plan says otherwise), so the first update uses ``t = 0``.
    NumPy and Python values are computed in float64. Past its end a schedule holds its last value.
    """

    infix: ClassVar[bool] = False
    """Whether it is written with an operator, and so needs brackets inside other ones."""

    @abstractmethod
    def compile(self, span: Span) -> Curve:
        """The schedule with every duration measured in ``span``.

        Raises:
            PlanError: If a relative duration has no horizon, or the parts do not fit.
        """

    @abstractmethod
    def plain(self) -> Any:
        """The schedule as numbers, strings, lists and dictionaries, as a plan file holds it."""

    def freeze(self, at: float, span: Span) -> Schedule:
        """The same schedule with the durations that have passed at ``at`` made absolute."""
        return self

    @cached_property
    def curve(self) -> Curve:
        """The compiled schedule; needs a horizon first if a duration is relative."""
        return self.compile(_UNKNOWN)

    @overload
    def __call__(self, t: float) -> float: ...
    @overload
    def __call__(self, t: Array) -> Array: ...
    def __call__(self, t: Any) -> Any:
        """The value, or values, at time ``t``.

        Raises:
            PlanError: If a duration is relative and the schedule was not resolved.
            ValueError: If a time is negative, not a number, or beyond 2^53.
        """
        if isinstance(t, (int, float)):
            if not 0 <= t <= LARGEST:
                raise _bad_time(t)
            return self.curve.at(t)
        if isinstance(t, np.ndarray):
            return self._on_numpy(t)
        if isinstance(t, (np.generic, Real)):
            return self(float(t))
        if isinstance(t, (list, tuple)):
            return self._on_numpy(np.asarray(t))
        return self._on_other(t)

    def _on_numpy(self, t: np.ndarray) -> np.ndarray:
        times = t.astype(np.float64, copy=False)
        if times.size:
            low, high = times.min(), times.max()
            if not (low >= 0 and high <= LARGEST):
                raise _bad_time(float(low) if not low >= 0 else float(high))
        if times.size <= _CHUNK:
            return np.asarray(self.curve.on(times, np))
        # In chunks, so that intermediate results stay in the processor's cache.
        flat, values = times.reshape(-1), np.empty(times.size)
        for i in range(0, flat.size, _CHUNK):
            values[i : i + _CHUNK] = self.curve.on(flat[i : i + _CHUNK], np)
        return values.reshape(times.shape)

    def _on_other(self, t: Array) -> Array:
        from array_api_compat import array_namespace, is_torch_array

        try:
            m = array_namespace(t)
        except TypeError:
            raise TypeError(
                f"t must be a number or an array, not {type(t).__name__}: pass the step count"
            ) from None
        if is_torch_array(t) and t.ndim == 0:
            return self._on_other(t.reshape(1)).reshape(())
        if str(t.dtype).split(".")[-1] in {"int8", "int16", "uint8", "uint16", "bool"}:
            t = m.astype(t, m.int32)
        return self.curve.on(t, m)

    @property
    def needs_horizon(self) -> bool:
        """Whether some duration is relative, so that `resolve` must come before evaluation.

        >>> from trainplan.schedules import cosine
        >>> cosine(0.1).needs_horizon, cosine(0.1, duration=100).needs_horizon
        (True, False)
        """
        try:
            _ = self.curve
        except PlanError:
            return True
        return False

    def resolve(self, horizon: int | float, *, unit: str = "steps", **rates: float) -> Schedule:
        """The schedule for a run of length ``horizon``, with relative durations measured.

        If ``horizon`` is a whole number (and the unit is not epochs), relative durations are cut
        down to whole units.

        Args:
            horizon: Length of the run in ``unit``, above zero.
            unit: What ``t`` counts: steps, tokens, samples or epochs.
            **rates: ``steps_per_epoch``, ``tokens_per_step`` or ``samples_per_step``, needed when
                a duration is written in another unit.

        >>> from trainplan.schedules import linear
        >>> linear(1.0, warmup="10%").resolve(100)(55)
        0.5
        """
        return Resolved(self, parse_horizon(horizon), unit, tuple(sorted(rates.items())))

    # Writing, comparing

    def to_dict(self) -> dict[str, Any]:
        """As a dictionary that `from_dict` reads; the form that plan files hold."""
        plain = self.plain()
        return plain if isinstance(plain, dict) else {"constant": plain}

    @property
    def digest(self) -> str:
        """A hash of what the schedule means, the same on every machine and Python version."""
        return digest_of(self.plain())

    # Arithmetic

    def __mul__(self, other: Schedule | float) -> Schedule:
        from trainplan.schedules import algebra

        return algebra.multiply(self, other)

    __rmul__ = __mul__

    def __add__(self, other: Schedule | float) -> Schedule:
        from trainplan.schedules import algebra

        return algebra.add(self, other)

    __radd__ = __add__

    def clip(self, low: float | None = None, high: float | None = None) -> Clipped:
        """Keep the value between ``low`` and ``high``."""
        from trainplan.schedules import algebra

        return algebra.Clipped(self, low, high)

    def stretch(self, factor: float) -> Stretched:
        """Make it last ``factor`` times as long."""
        from trainplan.schedules import algebra

        return algebra.Stretched(self, factor)

    def shift(self, by: Any) -> Shifted:
        """Start it later by a duration; until then it has its first value."""
        from trainplan.schedules import algebra

        return algebra.Shifted(self, Duration.parse(by))

    def repeat(self, every: Any = None, times: int | None = None) -> Repeated:
        """Begin again after each ``every``, ``times`` times or for ever.

        Args:
            every: A duration; by default its own length, or its share of the horizon.
            times: How many rounds; by default without an end.
        """
        from trainplan.schedules import algebra

        return algebra.Repeated(self, None if every is None else Duration.parse(every), times)

    def sample(self, at: Sequence[Any] | None = None, every: Any = None) -> Sampled:
        """Read the value only at some times, and hold it in between.

        REX (Chen et al., 2022, arXiv 2107.04197) calls this the sampling rate of a profile.

        Args:
            at: Times, each a duration; 0 is added. ``[0, "50%", "75%"]`` makes a step schedule.
            every: Read again after each such duration.
        """
        from trainplan.schedules import algebra

        return algebra.Sampled(
            self,
            None if at is None else tuple(Duration.parse(x) for x in at),
            None if every is None else Duration.parse(every),
        )

    # Looking

    def sparkline(self, horizon: float | None = None, width: int = 60) -> str:
        """The curve in one line of block characters."""
        from trainplan.schedules import drawing

        return drawing.sparkline(self, horizon, width)

    def plot(self, horizon: float | None = None, *, ax: Any = None, **style: Any) -> Any:
        """Draw the curve with matplotlib and return the axes."""
        from trainplan.schedules import drawing

        return drawing.plot(self, horizon, ax=ax, **style)


def _bad_time(t: float) -> PlanError:
    if isinstance(t, float) and math.isnan(t):
        return PlanError("time is not a number", place="t", value=t, remedy="Pass the step count")
    if t < 0:
        return PlanError(
            "time cannot be negative", place="t", value=t, remedy="t counts completed steps from 0"
        )
    return PlanError(
        "time is beyond 2^53, past which steps cannot be told apart",
        place="t",
        value=t,
        remedy="Count in a coarser unit",
    )


class Resolved(Schedule):
    """A schedule for a run of known length."""

    def __init__(
        self,
        schedule: Schedule,
        horizon: int | float,
        unit: str = "steps",
        rates: tuple[tuple[str, float], ...] = (),
    ) -> None:
        self.schedule = schedule
        self.horizon = horizon
        self.unit = unit
        self.rates = rates
        self.span = Span.of(horizon, unit, _known_rates(dict(rates)))
        _ = self.curve  # what cannot be resolved fails here, not at the first step

    @cached_property
    def curve(self) -> Curve:
        """The compiled schedule."""
        return self.schedule.compile(self.span)

    def compile(self, span: Span) -> Curve:
        return self.curve

    def plain(self) -> Any:
        given: dict[str, Any] = {"schedule": self.schedule.plain(), "horizon": self.horizon}
        if self.unit != "steps":
            given["unit"] = self.unit
        return {"resolve": given | dict(self.rates)}

    def _key(self) -> tuple[Any, ...]:
        return (self.schedule, self.horizon, self.unit, self.rates)

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Resolved) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        unit = [] if self.unit == "steps" else [f"unit={self.unit!r}"]
        rest = ", ".join([repr(self.horizon), *unit, *(f"{k}={v!r}" for k, v in self.rates)])
        return f"{bracketed(self.schedule)}.resolve({rest})"


def bracketed(schedule: Schedule) -> str:
    """How a schedule is written before a method's dot or inside a product."""
    return f"({schedule!r})" if schedule.infix else repr(schedule)


RATES = ("steps_per_epoch", "tokens_per_step", "samples_per_step")
"""What converts one unit of time into another."""


def _known_rates(rates: Mapping[str, Any]) -> dict[str, float]:
    for name, value in rates.items():
        if name not in RATES:
            raise PlanError("unknown rate", place=name, value=value, remedy=nearest(name, RATES))
    return {name: rate(value, name) for name, value in rates.items()}
