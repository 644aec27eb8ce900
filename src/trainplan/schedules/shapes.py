"""Shapes: how a phase goes from its start value to its end value.

A shape is a curve on [0, 1]. After a share ``u`` of the phase, with ``v = 1 - u`` left, it gives
the weights of the two end values: value = a(u) * start + b(u) * end. For most shapes a falls
from 1 to 0 and b = 1 - a rises. Both are written so that nothing cancels near either end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Final

from trainplan.errors import PlanError, nearest, short_repr
from trainplan.schedules.curves import Blend, Curve, Flat, HalfLife, Steps
from trainplan.schedules.values import count, finite

_NEARLY_ONE: Final = 1e-9
"""A ratio or base this close to 1 has the linear (or cosine) curve as its limit."""


_LOST: Final = 1e-16
"""What is smaller is lost beside 1."""
_TINY: Final = 1e-300
"""Parameters that are smaller than this, or larger than its inverse, leave the range of floats."""


class Shape:
    """A curve on [0, 1] between two values.

    Every shape can be named in a plan file (``shape: 1-sqrt`` or ``shape: {polynomial: 2}``), and
    be called with an array of shares to see its weight on the start value:

    >>> OneMinusSqrt()(0.25)
    0.5
    """

    name: ClassVar[str]

    def __post_init__(self) -> None:
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if field.type == "float" or (field.type == "float | None" and value is not None):
                finite(value, field.name)

    def falls(self, u: Any, v: Any, m: Any) -> Any:
        """Weight of the start value after a share ``u``, with ``v = 1 - u`` left."""
        raise NotImplementedError

    def rises(self, u: Any, v: Any, m: Any) -> Any:
        """Weight of the end value."""
        return 1 - self.falls(u, v, m)

    def bind(self, start: float, end: float) -> Shape:
        """The shape for these end values; shapes whose form depends on them override this."""
        return self

    def curve(self, start: float, end: float, length: float) -> Curve:
        """The phase from ``start`` to ``end`` in this shape."""
        bound = self.bind(start, end)
        return Blend(start, end, length, bound.falls, bound.rises)

    @property
    def open_ended(self) -> bool:
        """Whether a phase of this shape can go on for ever."""
        return False

    def __call__(self, u: float) -> float:
        """The weight on the start value after a share ``u`` in [0, 1]."""
        return float(self.falls(u, 1 - u, math))

    def plain(self) -> Any:
        """As it stands in a plan file: its name, or its name with its parameters."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        given = {key: _plain(value) for key, value in given.items() if value is not None}
        return {self.name: given} if given else self.name

    def __repr__(self) -> str:
        plain = self.plain()
        if isinstance(plain, str):
            return repr(plain)
        inner = ", ".join(f"{key}={value!r}" for key, value in plain[self.name].items())
        return f"{type(self).__name__}({inner})"


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True, repr=False)
class Linear(Shape):
    """A straight line: a = 1 - u."""

    name: ClassVar[str] = "linear"

    def falls(self, u: Any, v: Any, m: Any) -> Any:
        return v

    def rises(self, u: Any, v: Any, m: Any) -> Any:
        return u


@dataclass(frozen=True, repr=False)
class Constant(Shape):
    """Holds the start value for the whole phase: a = 1, b = 0."""

    name: ClassVar[str] = "constant"

    def falls(self, u: Any, v: Any, m: Any) -> Any:
        return v * 0.0 + 1.0

    def curve(self, start: float, end: float, length: float) -> Curve:
        return Flat(start, length)

    @property
    def open_ended(self) -> bool:
        return True


@dataclass(frozen=True, repr=False)
class Cosine(Shape):
    """Half a wave: a = (1 + cos(pi u)) / 2 (Loshchilov and Hutter, 2017, arXiv 1608.03983).

    >>> round(Cosine()(0.25), 4)
    0.8536
    """

    name: ClassVar[str] = "cosine"

    def falls(self, u: Any, v: Any, m: Any) -> Any:
        return _sine_squared(v, m)

    def rises(self, u: Any, v: Any, m: Any) -> Any:
        return _sine_squared(u, m)


@dataclass(frozen=True, repr=False)
class OneMinusSqrt(Shape):
    """Steep at first, then flat: a = 1 - sqrt(u) (Haegele et al., 2024, arXiv 2405.18392)."""

    name: ClassVar[str] = "1-sqrt"

    def falls(self, u: Any, v: Any, m: Any) -> Any:
        return v / (m.sqrt(u) + 1.0)

    def rises(self, u: Any, v: Any, m: Any) -> Any:
        return m.sqrt(u)


@dataclass(frozen=True, repr=False)
class OneMinusSquare(Shape):
    """Flat at first, then steep: a = 1 - u^2."""

    name: ClassVar[str] = "1-square"

    def falls(self, u: Any, v: Any, m: Any) -> Any:
        return v * (u + 1.0)

    def rises(self, u: Any, v: Any, m: Any) -> Any:
        return u * u


@dataclass(frozen=True, repr=False)
class Polynomial(Shape):
    """A power of what is left: a = (1 - u)^p, with p > 0.

    >>> Polynomial(2)(0.5)
    0.25
    """

    power: float = 2.0
    name: ClassVar[str] = "polynomial"

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive(self, "power")

    def falls(self, u: Any, v: Any, m: Any) -> Any:
        return v**self.power


@dataclass(frozen=True, repr=False)
class Exponential(Shape):
    """Equal factors in equal times.

    With ``ratio`` r, the curve r^u is stretched to reach the end value exactly:
    a = (r^u - r) / (1 - r). By default r = end / start, which makes it plain exponential decay,
    start * (end / start)^u. With ``half_life`` (in the plan's unit) the phase needs no end: the
    distance to the end value halves every ``half_life``, for ever.

    Attributes:
        ratio: Above 0. ``1/e`` is the decay of the Power scheduler (Shen et al., 2024).
        half_life: Above 0; the annealing of MiniCPM (Hu et al., 2024) has 5000 steps.
    """

    ratio: float | None = None
    half_life: float | None = None
    name: ClassVar[str] = "exponential"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ratio is not None and self.half_life is not None:
            raise PlanError("an exponential has a ratio or a half_life, not both", place="shape")
        _positive(self, "ratio", "half_life")

    def bind(self, start: float, end: float) -> Shape:
        if self.half_life is not None or self.ratio is not None:
            return self
        return replace(self, ratio=_ratio(self, start, end))

    def curve(self, start: float, end: float, length: float) -> Curve:
        if self.half_life is not None:
            return HalfLife(start, end, self.half_life, length)
        return super().curve(start, end, length)

    @property
    def open_ended(self) -> bool:
        return self.half_life is not None

    def falls(self, u: Any, v: Any, m: Any) -> Any:
        r = _known(self.ratio, self.name)
        if abs(r - 1) < _NEARLY_ONE:
            return v
        return m.expm1(v * -math.log(r)) * (r / (1 - r))

    def rises(self, u: Any, v: Any, m: Any) -> Any:
        r = _known(self.ratio, self.name)
        if abs(r - 1) < _NEARLY_ONE:
            return u
        return m.expm1(u * math.log(r)) / (r - 1)


@dataclass(frozen=True, repr=False)
class Inverse(Shape):
    """The reciprocal of the value is a straight line: value = 1 / ((1 - u)/start + u/end).

    With ``ratio`` r = end / start (the default), a = v / (v + u / r) (Wen et al., 2024,
    arXiv 2410.05192). A given ratio keeps that form for other end values.
    """

    ratio: float | None = None
    name: ClassVar[str] = "inverse"

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive(self, "ratio")

    def bind(self, start: float, end: float) -> Shape:
        return replace(self, ratio=_ratio(self, start, end)) if self.ratio is None else self

    def falls(self, u: Any, v: Any, m: Any) -> Any:
        return _bent(v, u, 1 / _known(self.ratio, self.name))

    def rises(self, u: Any, v: Any, m: Any) -> Any:
        return _bent(u, v, _known(self.ratio, self.name))


@dataclass(frozen=True, repr=False)
class InverseSqrt(Shape):
    """An inverse square root, stretched to its end: b = h(u) / h(1), h(x) = (1 + alpha x)^-1/2 - 1.

    The cooldown of the infinite schedules (Ibrahim et al., 2024, arXiv 2403.08763), alpha = 10.
    """

    alpha: float = 10.0
    name: ClassVar[str] = "inverse-sqrt"

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive(self, "alpha")

    def falls(self, u: Any, v: Any, m: Any) -> Any:
        return 1 - self.rises(u, v, m)

    def rises(self, u: Any, v: Any, m: Any) -> Any:
        whole = math.expm1(-0.5 * math.log1p(self.alpha))
        return m.expm1(m.log1p(u * self.alpha) * -0.5) / whole


@dataclass(frozen=True, repr=False)
class Rex(Shape):
    """Reflected exponential: a = (1-u) / ((1-d) + d (1-u)) (Chen et al., 2022, arXiv 2107.04197).

    Attributes:
        d: In [0, 1). 0 is linear, 0.5 the paper's; many community ports use 0.9, which holds the
            peak far longer.
    """

    d: float = 0.5
    name: ClassVar[str] = "rex"

    def __post_init__(self) -> None:
        super().__post_init__()
        _within(self, "d", 0 <= self.d < 1, "0 <= d < 1")

    def falls(self, u: Any, v: Any, m: Any) -> Any:
        return _bent(v, u, 1 - self.d)

    def rises(self, u: Any, v: Any, m: Any) -> Any:
        return _bent(u, v, 1 / (1 - self.d))


@dataclass(frozen=True, repr=False)
class CosinePower(Shape):
    """An exponential of a cosine: a = (p^c - 1) / (p - 1), c = (1 + cos(pi u)) / 2.

    sharpDARTS (Hundt et al., 2019, arXiv 1903.09900).

    Attributes:
        p: At least 1. 1 is the cosine; larger falls faster. It is a base, not an exponent.
    """

    p: float = 10.0
    name: ClassVar[str] = "cosine-power"

    def __post_init__(self) -> None:
        super().__post_init__()
        _within(self, "p", self.p >= 1, "p >= 1")

    def falls(self, u: Any, v: Any, m: Any) -> Any:
        c = _sine_squared(v, m)
        if self.p - 1 < _NEARLY_ONE:
            return c
        log = math.log(self.p)
        return m.expm1(c * log) / math.expm1(log)


@dataclass(frozen=True, repr=False)
class DampedCosine(Shape):
    """A wave between two falling lines (Zhao et al., 2025, arXiv 2510.12285).

    Peak(u) = start (1 - (1-gamma) u), Valley(u) = start/2 (1-u) + end u, and the value is
    (Peak + Valley)/2 + (Peak - Valley)/2 cos(pi (2N-1) u).

    Attributes:
        cycles: N, from 1 to 10 000.
        gamma: In [0, 1]. With less than end / start (the default) the lines cross before the end.
    """

    cycles: int = 1
    gamma: float | None = None
    name: ClassVar[str] = "damped-cosine"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "cycles", count(self.cycles, "cycles", most=10_000))
        if self.gamma is not None:
            _within(self, "gamma", 0 <= self.gamma <= 1, "0 <= gamma <= 1")

    def bind(self, start: float, end: float) -> Shape:
        if self.gamma is not None:
            return self
        return replace(self, gamma=min(1.0, max(0.0, end / start)) if start else 0.0)

    def falls(self, u: Any, v: Any, m: Any) -> Any:
        wave = self._wave(u, m)
        peak, valley = v + u * (self.gamma or 0.0), v / 2
        return (peak + valley) / 2 + (peak - valley) / 2 * wave

    def rises(self, u: Any, v: Any, m: Any) -> Any:
        return (u - u * self._wave(u, m)) / 2

    def _wave(self, u: Any, m: Any) -> Any:
        return m.cos(u * (math.pi * (2 * self.cycles - 1)))


@dataclass(frozen=True, repr=False)
class Uba(Shape):
    """Budgeted annealing: a = 2c / (2 phi + (2 - phi) c), c = 1 + cos(pi u).

    Tang et al., 2025, arXiv 2505.24452.

    Attributes:
        phi: Above 0. Small holds the start and drops late, 2 is the cosine, large falls early.
    """

    phi: float = 1.0
    name: ClassVar[str] = "uba"

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive(self, "phi")

    def falls(self, u: Any, v: Any, m: Any) -> Any:
        return _bent(_sine_squared(v, m), _sine_squared(u, m), self.phi / 2)

    def rises(self, u: Any, v: Any, m: Any) -> Any:
        return _bent(_sine_squared(u, m), _sine_squared(v, m), 2 / self.phi)


@dataclass(frozen=True, repr=False)
class Root(Shape):
    """The p-th power of the value is a straight line: value = ((1-u) start^p + u end^p)^(1/p).

    The pacing of Platanios et al., 2019, arXiv 1903.09848: of data that is opened so, old
    examples are seen equally often if p = 2. With ``ratio`` r = start / end (the default),
    b = ((r^p + u (1 - r^p))^(1/p) - r) / (1 - r); between values of unlike sign, or to 0, r is 0
    and b = u^(1/p).

    Attributes:
        power: p, above 0. 1 is linear.
        ratio: Not below 0.
    """

    power: float = 2.0
    ratio: float | None = None
    name: ClassVar[str] = "root"

    def __post_init__(self) -> None:
        super().__post_init__()
        _within(self, "power", 0.01 <= self.power <= 100, "0.01 <= power <= 100")
        if self.ratio is not None:
            _within(self, "ratio", 0 <= self.ratio <= 1 / _TINY, "ratio >= 0")

    def bind(self, start: float, end: float) -> Shape:
        if self.ratio is not None:
            return self
        like = start * end > 0 and _TINY <= (start / end) ** self.power <= 1 / _TINY
        return replace(self, ratio=start / end if like else 0.0)

    def falls(self, u: Any, v: Any, m: Any) -> Any:
        a, b = self._both(u, v, m)
        return a / (a + b)

    def rises(self, u: Any, v: Any, m: Any) -> Any:
        a, b = self._both(u, v, m)
        return b / (a + b)

    def _both(self, u: Any, v: Any, m: Any) -> tuple[Any, Any]:
        """Both weights, each of which is exactly 0 where it vanishes."""
        r = self.ratio or 0.0
        if abs(r - 1) < _NEARLY_ONE:
            return v, u
        raised = r**self.power
        if raised < _LOST:
            b = u ** (1 / self.power)
            return 1 - b, b
        if raised > 1 / _LOST:
            a = v ** (1 / self.power)
            return a, 1 - a
        a = m.expm1(m.log1p(v * (raised - 1)) / self.power) / (r - 1)
        return a, m.expm1(m.log1p(u * (1 / raised - 1)) / self.power) / (1 / r - 1)


@dataclass(frozen=True, repr=False)
class Arctan(Shape):
    """An arctangent between its values at both ends: b = (h(u) - h(0)) / (h(1) - h(0)).

    h(u) = arctan(slope (u - centre)): fastest at the centre, and never quite done (Samarasinghe et
    al., 2023, arXiv 2309.03989).

    Attributes:
        slope: From 1e-6, which is linear, to 1e6, which is a step.
        centre: In [0, 1].
    """

    slope: float = 10.0
    centre: float = 0.05
    name: ClassVar[str] = "arctan"

    def __post_init__(self) -> None:
        super().__post_init__()
        _within(self, "slope", 1e-6 <= self.slope <= 1e6, "1e-6 <= slope <= 1e6")
        _within(self, "centre", 0 <= self.centre <= 1, "0 <= centre <= 1")

    def falls(self, u: Any, v: Any, m: Any) -> Any:
        last = self.slope * (1 - self.centre)
        return self._between(v, last, last - v * self.slope, m) / self._whole

    def rises(self, u: Any, v: Any, m: Any) -> Any:
        first = -self.slope * self.centre
        return self._between(u, u * self.slope + first, first, m) / self._whole

    @property
    def _whole(self) -> float:
        last, first = self.slope * (1 - self.centre), -self.slope * self.centre
        return float(self._between(1.0, last, first, math))

    def _between(self, share: Any, x: Any, y: Any, m: Any) -> Any:
        """arctan(x) - arctan(y) for x - y = slope * share, exactly 0 if that is."""
        atan2 = m.atan2 if hasattr(m, "atan2") else m.arctan2
        return atan2(share * self.slope, x * y + 1.0)


@dataclass(frozen=True, repr=False)
class Step(Shape):
    """Drops by a factor at given shares of the phase; a is ``factor`` to the number of drops.

    Attributes:
        at: Shares in (0, 1), ascending.
        factor: What each drop multiplies the weight by, in [0, 1).
    """

    at: Sequence[float] = (0.5, 0.75)
    factor: float = 0.1
    name: ClassVar[str] = "step"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.at, (list, tuple)):
            raise PlanError("not a list of shares", place="at", value=self.at)
        object.__setattr__(self, "at", tuple(finite(x, f"at[{i}]") for i, x in enumerate(self.at)))
        rising = all(a < b for a, b in zip((0.0, *self.at), (*self.at, 1.0), strict=True))
        _within(self, "at", rising, "ascending shares between 0 and 1")
        _within(self, "factor", 0 <= self.factor < 1, "0 <= factor < 1")

    def falls(self, u: Any, v: Any, m: Any) -> Any:
        a = v * 0.0 + 1.0
        for k, share in enumerate(self.at):
            drop = self.factor**k - self.factor ** (k + 1)
            a = a - drop * ((u >= share) * 1.0)
        return a

    def curve(self, start: float, end: float, length: float) -> Curve:
        levels = [self.factor**k for k in range(len(self.at) + 1)]
        values = [start * a + end * (1 - a) for a in levels]
        return Steps([0.0, *(share * length for share in self.at)], values, length)


@dataclass(frozen=True, repr=False)
class Custom(Shape):
    """Any function from a share in [0, 1] to the weight on the start value.

    It is called with a float or with an array of the library in use, and should be 1 at 0 and 0
    at 1. To be written into a plan file it needs a name: see `register_shape`.
    """

    function: Callable[[Any], Any]
    name: ClassVar[str] = "custom"

    def falls(self, u: Any, v: Any, m: Any) -> Any:
        return self.function(u)

    def plain(self) -> Any:
        for name, function in _REGISTERED.items():
            if function is self.function:
                return name
        raise PlanError(
            "a function cannot be written into a plan file",
            place="shape",
            value=self.function,
            remedy="Give it a name with trainplan.schedules.register_shape(name, function)",
        )

    def __repr__(self) -> str:
        for name, function in _REGISTERED.items():
            if function is self.function:
                return repr(name)
        return short_repr(self.function)


SHAPES: Final[dict[str, type[Shape]]] = {
    cls.name: cls
    for cls in (
        Arctan,
        Constant,
        Cosine,
        CosinePower,
        DampedCosine,
        Exponential,
        Inverse,
        InverseSqrt,
        Linear,
        OneMinusSqrt,
        OneMinusSquare,
        Polynomial,
        Rex,
        Root,
        Step,
        Uba,
    )
}
"""The shapes by the names that plan files use."""

_REGISTERED: Final[dict[str, Callable[[Any], Any]]] = {}


def register_shape(name: str, function: Callable[[Any], Any]) -> None:
    """Give a function on [0, 1] a name, so that plans that use it can be written and read.

    Plan files never import code: whoever reads such a file must have registered the name.

    >>> register_shape("fourth-power", lambda u: (1 - u) ** 4)
    >>> parse_shape("fourth-power")(0.5)
    0.0625
    """
    if name in SHAPES:
        raise PlanError("this name is taken by a built-in shape", place="name", value=name)
    _REGISTERED[name] = function


def parse_shape(value: Any) -> Shape:
    """Read a shape: a name, a name with parameters, a `Shape`, or a function on [0, 1]."""
    if isinstance(value, Shape):
        return value
    if isinstance(value, str):
        return _named(value, {})
    if isinstance(value, dict) and len(value) == 1:
        ((name, given),) = value.items()
        return _named(name, given)
    if callable(value):
        return Custom(value)
    raise PlanError(
        "not a shape", value=value, remedy="Write a name like '1-sqrt' or {'polynomial': 2}"
    )


def _named(name: Any, given: Any) -> Shape:
    if name in _REGISTERED:
        return Custom(_REGISTERED[name])
    if name not in SHAPES:
        remedy = nearest(str(name), [*SHAPES, *_REGISTERED])
        raise PlanError("unknown shape", value=name, remedy=remedy)
    cls = SHAPES[name]
    names = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    if not isinstance(given, dict):
        if not names:
            raise PlanError(f"the shape {name!r} has no parameters", value=given)
        given = {names[0]: given}
    unknown = set(given) - set(names)
    if unknown:
        remedy = nearest(str(min(unknown)), names) if names else "Write its name alone"
        raise PlanError(
            f"unknown parameter of the shape {name!r}", value=min(unknown), remedy=remedy
        )
    return cls(**given)


def _sine_squared(v: Any, m: Any) -> Any:
    """(1 + cos(pi u)) / 2 with v = 1 - u, which keeps its digits where it is small."""
    sine = m.sin(v * (math.pi / 2))
    return sine * sine


def _bent(a: Any, b: Any, k: float) -> Any:
    """The weight a of a pair with a + b = 1, bent by a Moebius map: a / (a + k b)."""
    return a / (a + b * k)


def _known(ratio: float | None, name: str) -> float:
    if ratio is None:
        raise PlanError(
            f"the shape {name!r} alone has no ratio", place="shape", remedy="Give ratio=..."
        )
    return ratio


def _ratio(shape: Shape, start: float, end: float) -> float:
    if start == 0 or not _TINY <= end / start <= 1 / _TINY:
        raise PlanError(
            f"the shape {shape.name!r} between {start:g} and {end:g} needs both values above zero",
            place="end",
            value=end,
            remedy="Give a small positive end, or the shape a ratio: "
            f"{{{shape.name}: {{ratio: 0.1}}}}",
        )
    return end / start


def _positive(shape: Shape, *names: str) -> None:
    for name in names:
        value = getattr(shape, name)
        if value is not None:
            _within(shape, name, _TINY <= value <= 1 / _TINY, f"{name} > 0")


def _within(shape: Shape, name: str, good: bool, rule: str) -> None:
    if not good:
        raise PlanError(
            f"outside the range of the shape {shape.name!r}",
            place=name,
            value=getattr(shape, name),
            remedy=f"Use {rule}",
        )
