"""Curves: schedules whose numbers are all known, ready to be evaluated fast.

A schedule is compiled into a curve once. A curve has two ways in, which compute the same thing:
``at`` for one Python number, ``on`` for an array of any kind. The mathematics of a phase is
written once, against a namespace ``m`` that is `math` for numbers and the array's own library
for arrays. Integer times are subtracted as integers, so that a float32 library still tells the
last of 2^25 steps from the end.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

Array = Any
"""A NumPy array, torch tensor, or JAX array or tracer."""

_OVERFLOWS = 700.0
"""The exponential of more does not fit into a float."""

_MOST_BOUNDS = 10_000
"""Of a pattern that is repeated very often, only the first rounds are listed."""

Weight = Callable[[Any, Any, Any], Any]
"""``(u, v, m) -> a``: the weight of a phase's start (or end) value after a share ``u`` of it, with
``v = 1 - u`` computed without cancellation."""


class Curve:
    """A function of time with a first value, a last value and a length (infinite if open)."""

    __slots__ = ("length",)

    length: float

    def at(self, t: float) -> float:
        """The value at one time ``t >= 0``."""
        raise NotImplementedError

    def on(self, t: Array, m: Any) -> Array:
        """The values at an array of times ``>= 0``; ``m`` is its namespace."""
        raise NotImplementedError

    @property
    def first(self) -> float:
        """The value at time 0."""
        return self.at(0)

    @property
    def last(self) -> float:
        """The value that is held once the curve has ended (for ever growing ones: at 2^53)."""
        return self.at(2 * self.length + 1 if math.isfinite(self.length) else 2**53)

    def bounds(self) -> list[float]:
        """The times at which one piece ends and another begins, 0 and the length included."""
        return [0, self.length]


class Flat(Curve):
    """One value."""

    __slots__ = ("value",)

    def __init__(self, value: float, length: float = math.inf) -> None:
        self.value = value
        self.length = length

    def at(self, t: float) -> float:
        return self.value

    def on(self, t: Array, m: Any) -> Array:
        return full_like(t, self.value, m)


class Blend(Curve):
    """From ``start`` to ``end`` in ``length``, weighted by a shape; then ``end``."""

    __slots__ = ("end", "falls", "rises", "start")

    def __init__(
        self, start: float, end: float, length: float, falls: Weight, rises: Weight
    ) -> None:
        self.start = start
        self.end = end
        self.length = length
        self.falls = falls
        self.rises = rises

    def at(self, t: float) -> float:
        length = self.length
        if t >= length:
            return self.end
        return float(self._mix(t / length, (length - t) / length, math))

    def _mix(self, u: Any, v: Any, m: Any) -> Any:
        if self.end == 0:
            return self.falls(u, v, m) * self.start
        if self.start == 0:
            return self.rises(u, v, m) * self.end
        return self.falls(u, v, m) * self.start + self.rises(u, v, m) * self.end

    def on(self, t: Array, m: Any) -> Array:
        length = self.length
        if length <= 0:
            return full_like(t, self.end, m)
        if m is np:
            t = np.minimum(t, length)
            u, v = t / length, (length - t) / length
        else:
            t = minimum(t, length, m)
            u, v = divide(t, length, m), divide(-minus(t, length, m), length, m)
        return self._mix(u, v, m)


class HalfLife(Curve):
    """``end + (start - end) * 0.5 ** (t / half_life)``, for ever or until ``length``."""

    __slots__ = ("end", "half_life", "start")

    def __init__(self, start: float, end: float, half_life: float, length: float) -> None:
        self.start = start
        self.end = end
        self.half_life = half_life
        self.length = length

    def at(self, t: float) -> float:
        halvings = min(t, self.length) / self.half_life
        return self.end + (self.start - self.end) * math.pow(0.5, halvings)

    def on(self, t: Array, m: Any) -> Array:
        if math.isfinite(self.length):
            t = minimum(t, self.length, m)
        share = divide(t, self.half_life, m)
        return self.end + (self.start - self.end) * m.exp(share * -math.log(2.0))


class Power(Curve):
    """``min(cap, coefficient * t ** exponent)``."""

    __slots__ = ("cap", "coefficient", "exponent", "knee")

    def __init__(self, coefficient: float, exponent: float, cap: float) -> None:
        self.coefficient = coefficient
        self.exponent = exponent
        self.cap = cap
        # Below the knee a falling power law lies above its cap; there t ** exponent may overflow.
        falling = exponent < 0
        self.knee = power(coefficient / cap, -1 / exponent) if falling else 0.0
        self.length = math.inf

    def at(self, t: float) -> float:
        if t <= self.knee and self.exponent < 0:
            return self.cap
        return float(min(self.cap, self.coefficient * power(float(t), self.exponent)))

    def on(self, t: Array, m: Any) -> Array:
        t = maximum(to_float(t, m), self.knee, m)
        with np.errstate(over="ignore"):  # what is too large is capped
            return minimum(self.coefficient * t**self.exponent, self.cap, m)


class Sigmoid(Curve):
    """``start / (1 + exp((t - middle) / scale))``."""

    __slots__ = ("middle", "scale", "start")

    def __init__(self, start: float, middle: float, scale: float) -> None:
        self.start = start
        self.middle = middle
        self.scale = scale
        self.length = math.inf

    def at(self, t: float) -> float:
        return self.start / (1 + math.exp(min((t - self.middle) / self.scale, _OVERFLOWS)))

    def on(self, t: Array, m: Any) -> Array:
        past = divide(minus(t, self.middle, m), self.scale, m)
        return self.start / (1 + m.exp(minimum(past, _OVERFLOWS, m)))


class Geometric(Curve):
    """``value * factor ** floor(t / every)``."""

    __slots__ = ("every", "factor", "value")

    def __init__(self, value: float, factor: float, every: float) -> None:
        self.value = value
        self.factor = factor
        self.every = every
        self.length = math.inf

    def at(self, t: float) -> float:
        return float(self.value * power(self.factor, math.floor(t / self.every)))

    def on(self, t: Array, m: Any) -> Array:
        if m is np and t.size:
            drops = np.floor(t / self.every)  # a third of the time of //
            low, high = drops.min(), drops.max()
            if high - low <= t.size:  # a table of powers is cheaper than a power for each
                table = self.value * self.factor ** np.arange(low, high + 1)
                return table[(drops - low).astype(np.intp)]
        whole = is_whole(t) and fits(t, self.every)
        drops = t // int(self.every) if whole else m.floor(divide(t, self.every, m))
        return self.value * self.factor ** to_float(drops, m)


class Steps(Curve):
    """Values held from each edge (a time) until the next one; the first edge is 0."""

    __slots__ = ("edges", "values")

    def __init__(self, edges: Sequence[float], values: Sequence[float], length: float) -> None:
        self.edges = tuple(edges)
        self.values = tuple(values)
        self.length = length

    def at(self, t: float) -> float:
        return self.values[max(bisect_right(self.edges, t) - 1, 0)]

    def on(self, t: Array, m: Any) -> Array:
        edges, values = constants((self.edges, self.values), t, m)
        index = m.searchsorted(edges, to_float(t, m), side="right") - 1
        return values[maximum(index, 0, m)]

    def bounds(self) -> list[float]:
        return [*self.edges, self.length]


class Table(Curve):
    """Straight lines through evenly spaced values over ``length``."""

    __slots__ = ("values",)

    def __init__(self, values: Sequence[float], length: float) -> None:
        self.values = tuple(values)
        self.length = length

    def at(self, t: float) -> float:
        values = self.values
        if t >= self.length:
            return values[-1]
        x = t / self.length * (len(values) - 1)
        i = min(int(x), len(values) - 2)
        share = x - i
        return values[i] * (1 - share) + values[i + 1] * share

    def on(self, t: Array, m: Any) -> Array:
        (values,) = constants((self.values,), t, m)
        n = len(self.values) - 1
        if self.length <= 0:
            return full_like(t, self.values[-1], m)
        x = divide(minimum(t, self.length, m), self.length, m) * n
        low = minimum(m.floor(x), n - 1, m)
        share = x - low
        index = to_index(low, m)
        return values[index] * (1 - share) + values[index + 1] * share


class Chain(Curve):
    """Curves one after the other, each in its own time; a boundary belongs to the later one."""

    __slots__ = ("final", "parts", "starts")

    def __init__(self, parts: Sequence[Curve], starts: Sequence[float], length: float) -> None:
        self.parts = tuple(parts)
        self.starts = tuple(starts)
        self.length = length
        # Between starts that are not whole, the last phase can seem to end just after the end.
        self.final = None if all(map(_whole, starts)) else self.parts[-1].last

    def at(self, t: float) -> float:
        if self.final is not None and t >= self.length:
            return self.final
        i = bisect_right(self.starts, t) - 1
        return self.parts[i].at(t - self.starts[i])

    def on(self, t: Array, m: Any) -> Array:
        if m is np:
            return self._on_numpy(t)
        out = self.parts[0].on(t, m)
        for start, part in zip(self.starts[1:], self.parts[1:], strict=True):
            local = maximum(minus(t, start, m), 0, m)
            out = m.where(at_least(t, start, m), part.on(local, m), out)
        return out if self.final is None else held(out, self.final, t, self.length, m)

    def _on_numpy(self, t: np.ndarray) -> np.ndarray:
        flat = t.ravel()
        ordered = bool(flat.size < 2 or (flat[1:] >= flat[:-1]).all())
        order = None if ordered else np.argsort(flat, kind="stable")
        times = flat if order is None else flat[order]
        cuts = [0, *np.searchsorted(times, self.starts[1:], side="left").tolist(), times.size]
        values = np.empty(times.shape)
        for part, start, (low, high) in zip(self.parts, self.starts, pairwise(cuts), strict=True):
            if high > low:
                piece = times[low:high]
                values[low:high] = part.on(piece - start if start else piece, np)
        if order is not None:
            unsorted = np.empty_like(values)
            unsorted[order] = values
            values = unsorted
        values = values.reshape(t.shape)
        return values if self.final is None else held(values, self.final, t, self.length, np)

    def bounds(self) -> list[float]:
        inner = {
            start + bound
            for part, start in zip(self.parts, self.starts, strict=True)
            for bound in part.bounds()
            if start + bound <= self.length
        }
        return sorted(inner | {self.length})


class Scale(Curve):
    """A curve times a number."""

    __slots__ = ("curve", "factor")

    def __init__(self, curve: Curve, factor: float) -> None:
        self.curve = curve
        self.factor = factor
        self.length = curve.length

    def at(self, t: float) -> float:
        return self.curve.at(t) * self.factor

    def on(self, t: Array, m: Any) -> Array:
        return self.curve.on(t, m) * self.factor

    def bounds(self) -> list[float]:
        return self.curve.bounds()


class Pair(Curve):
    """Two curves added or multiplied."""

    __slots__ = ("left", "multiply", "right")

    def __init__(self, left: Curve, right: Curve, multiply: bool) -> None:
        self.left = left
        self.right = right
        self.multiply = multiply
        self.length = max(left.length, right.length)

    def at(self, t: float) -> float:
        a, b = self.left.at(t), self.right.at(t)
        return a * b if self.multiply else a + b

    def on(self, t: Array, m: Any) -> Array:
        a, b = self.left.on(t, m), self.right.on(t, m)
        return a * b if self.multiply else a + b

    def bounds(self) -> list[float]:
        return sorted({*self.left.bounds(), *self.right.bounds()})


class Limit(Curve):
    """A curve kept between two values."""

    __slots__ = ("curve", "high", "low")

    def __init__(self, curve: Curve, low: float, high: float) -> None:
        self.curve = curve
        self.low = low
        self.high = high
        self.length = curve.length

    def at(self, t: float) -> float:
        return min(max(self.curve.at(t), self.low), self.high)

    def on(self, t: Array, m: Any) -> Array:
        values = self.curve.on(t, m)
        if self.low > -math.inf:
            values = maximum(values, self.low, m)
        return minimum(values, self.high, m) if self.high < math.inf else values

    def bounds(self) -> list[float]:
        return self.curve.bounds()


class Retime(Curve):
    """``curve(max(0, t - delay) / factor)``; a negative delay skips the beginning."""

    __slots__ = ("curve", "delay", "factor", "final")

    def __init__(self, curve: Curve, delay: float = 0, factor: float = 1) -> None:
        self.curve = curve
        self.delay = delay
        self.factor = factor
        self.length = max(0, curve.length * factor + delay)
        self.final = None if factor == 1 and _whole(delay) else curve.last

    def at(self, t: float) -> float:
        if self.final is not None and t >= self.length:
            return self.final
        t = t - self.delay
        return self.curve.at((t if t > 0 else 0) / self.factor)

    def on(self, t: Array, m: Any) -> Array:
        local = maximum(minus(t, self.delay, m), 0, m) if self.delay else t
        out = self.curve.on(local if self.factor == 1 else divide(local, self.factor, m), m)
        return out if self.final is None else held(out, self.final, t, self.length, m)

    def bounds(self) -> list[float]:
        moved = (bound * self.factor + self.delay for bound in self.curve.bounds())
        return sorted({0, *(bound for bound in moved if bound > 0)})


class Cycle(Curve):
    """The first ``period`` of a curve, again and again; after ``times``, its last value."""

    __slots__ = ("curve", "period", "times")

    def __init__(self, curve: Curve, period: float, times: float) -> None:
        self.curve = curve
        self.period = period
        self.times = times
        self.length = period * times

    def at(self, t: float) -> float:
        return self.curve.at(self.period if t >= self.length else t % self.period)

    def on(self, t: Array, m: Any) -> Array:
        local = t % self.period
        if math.isfinite(self.length):
            local = m.where(at_least(t, self.length, m), full_like(local, self.period, m), local)
        return self.curve.on(local, m)

    def bounds(self) -> list[float]:
        if not math.isfinite(self.times):
            return [0, self.period, self.length]
        inner = [bound for bound in self.curve.bounds() if bound <= self.period]
        rounds = min(int(self.times), 1 + _MOST_BOUNDS // max(1, len(inner)))
        bounds = {k * self.period + bound for k in range(rounds) for bound in inner}
        return sorted(bounds | {self.length})


class Cut(Curve):
    """The first ``length`` of a curve, then its value there."""

    __slots__ = ("curve",)

    def __init__(self, curve: Curve, length: float) -> None:
        self.curve = curve
        self.length = length

    def at(self, t: float) -> float:
        return self.curve.at(min(t, self.length))

    def on(self, t: Array, m: Any) -> Array:
        return self.curve.on(minimum(t, self.length, m) if math.isfinite(self.length) else t, m)

    def bounds(self) -> list[float]:
        inner = {bound for bound in self.curve.bounds() if bound < self.length}
        return sorted(inner | {self.length})


# What follows hides the differences between array libraries. Integer arrays stay integers for as
# long as the numbers that meet them are whole and fit.


def power(base: float, exponent: float) -> float:
    """``base ** exponent``; what is too large for a float is infinite, as it is in arrays."""
    try:
        return float(base**exponent)
    except OverflowError:
        return math.inf


def held(values: Array, final: float, t: Array, length: float, m: Any) -> Array:
    """The values, but ``final`` from the time ``length`` on."""
    if not math.isfinite(length):
        return values
    return m.where(at_least(t, length, m), full_like(values, final, m), values)


def _whole(number: float) -> bool:
    return float(number).is_integer()


def is_whole(t: Array) -> bool:
    """Whether an array counts in integers."""
    return "int" in str(t.dtype)


def fits(t: Array, number: float) -> bool:
    """Whether ``number`` can meet the integer array ``t`` without overflow or rounding."""
    limit = 2**31 if str(t.dtype).endswith("int32") else 2**62
    return float(number).is_integer() and abs(number) < limit


def to_float(t: Array, m: Any) -> Array:
    """As floating point: the array's own kind, or its library's default."""
    if m is np or not is_whole(t):
        return t
    return t * 1.0


def to_index(x: Array, m: Any) -> Array:
    """Whole-numbered floats as indices."""
    return x.astype(np.intp) if m is np else m.astype(x, m.int64 if hasattr(x, "long") else m.int32)


def minus(t: Array, number: float, m: Any) -> Array:
    """``t - number``, exact for integers."""
    if m is not np and is_whole(t):
        return t - int(number) if fits(t, number) else to_float(t, m) - float(number)
    return t - number


def divide(t: Array, number: float, m: Any) -> Array:
    """``t / number`` in floating point."""
    return t / float(number)


def at_least(t: Array, number: float, m: Any) -> Array:
    """``t >= number``."""
    if m is not np and is_whole(t):
        return t >= int(number) if fits(t, number) else to_float(t, m) >= float(number)
    return t >= number


def minimum(x: Array, number: float, m: Any) -> Array:
    """Element-wise minimum with a number."""
    if m is np:
        return np.minimum(x, number)
    if is_whole(x):
        return m.clip(x, max=int(number)) if fits(x, number) else minimum(to_float(x, m), number, m)
    return m.clip(x, max=float(number))


def maximum(x: Array, number: float, m: Any) -> Array:
    """Element-wise maximum with a number."""
    if m is np:
        return np.maximum(x, number)
    if is_whole(x):
        return m.clip(x, min=int(number)) if fits(x, number) else maximum(to_float(x, m), number, m)
    return m.clip(x, min=float(number))


def full_like(t: Array, value: float, m: Any) -> Array:
    """An array like ``t`` (in floating point) filled with one value."""
    return np.full(t.shape, value) if m is np else m.full_like(to_float(t, m), value)


def constants(rows: Sequence[Sequence[float]], t: Array, m: Any) -> list[Array]:
    """Constant rows as arrays of the same library, kind and device as ``t``."""
    if m is np:
        return [np.asarray(row, dtype=np.float64) for row in rows]
    like = to_float(t, m)
    if hasattr(like, "device") and hasattr(like, "requires_grad"):
        return [m.asarray(row, dtype=like.dtype, device=like.device) for row in rows]
    return [m.asarray(row, dtype=like.dtype) for row in rows]
