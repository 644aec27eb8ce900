"""Loss curves: what was measured, and the learning rate of every step up to there.

A law needs the rate of *every* step, a log has it at some. `clean` states how a log's raw series
become a curve; whatever it changes, it says in the curve's ``notes``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainplan.laws.readers.raw import CurveError, Floats, Series
from trainplan.plan import Plan
from trainplan.schedules.base import Schedule

MOST_STEPS = 50_000_000
"""Steps of the longest run that is taken in."""
_SPIKE_WINDOW = 9
_SPIKE_SIZE = 8.0
_SPIKE_LEAST = 0.02
_GAP = 5.0
_FLAT = 1e-6


@dataclass(frozen=True, eq=False)
class Curve:
    """A measured loss curve with the rate of every step.

    Attributes:
        name: Of the run.
        steps: Where the loss was measured; shape (n,), increasing. Step ``t`` indexes ``rates``.
        loss: In nats; shape (n,).
        rates: Learning rate of step 0, 1, ...; shape (T,), T > steps[-1].
        warmup: Index of the first step after warm-up. Laws leave out the rise before it, and fits
            the points before it.
        notes: What was changed on the way from the log, in words.

    >>> curve = Curve("run", [10, 20], [3.2, 3.0], np.full(21, 1e-3))
    >>> curve.peak, curve.warmup, len(curve)
    (0.001, 0, 2)
    """

    name: str
    steps: NDArray[np.int64]
    loss: Floats
    rates: Floats
    warmup: int = -1
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        steps, loss, rates = (np.asarray(x) for x in (self.steps, self.loss, self.rates))
        for field, values in (("steps", steps), ("loss", loss), ("rates", rates)):
            if values.ndim != 1 or values.size == 0:
                raise CurveError(
                    "must be a list of at least one number", place=f"{self.name}: {field}"
                )
        if steps.size != loss.size:
            raise CurveError(f"{steps.size} steps but {loss.size} losses", place=self.name)
        if not (np.diff(steps) > 0).all() or steps[0] < 0 or steps[-1] >= rates.size:
            raise CurveError(
                f"steps must increase from 0 or later to less than {rates.size} (the rates)",
                place=self.name,
            )
        if not (np.isfinite(loss).all() and (loss > 0).all()):
            raise CurveError("losses must be finite and above zero", place=self.name)
        if not (np.isfinite(rates).all() and (rates >= 0).all() and rates.max() > 0):
            raise CurveError(
                "rates must be finite, not negative, and not all zero", place=self.name
            )
        object.__setattr__(self, "steps", steps.astype(np.int64))
        object.__setattr__(self, "loss", loss.astype(np.float64))
        object.__setattr__(self, "rates", rates.astype(np.float64))
        if self.warmup < 0:
            object.__setattr__(self, "warmup", warmup_of(self.rates))

    def __len__(self) -> int:
        return int(self.steps.size)

    @property
    def peak(self) -> float:
        """The highest rate."""
        return float(self.rates.max())

    @property
    def last(self) -> int:
        """The last measured step."""
        return int(self.steps[-1])

    @cached_property
    def noise(self) -> float:
        """Scatter of log loss from point to point (a robust standard deviation)."""
        return scatter(np.log(self.loss))

    def select(self, mask: NDArray[np.bool_]) -> Curve:
        """The curve at some of its points."""
        return replace(self, steps=self.steps[mask], loss=self.loss[mask])

    def between(self, start: float, stop: float) -> Curve:
        """The points with ``start <= step < stop``."""
        return self.select((self.steps >= start) & (self.steps < stop))


def warmup_of(rates: Floats) -> int:
    """Index of the first step at the end of the first rise.

    >>> warmup_of(np.array([0.0, 0.5, 1.0, 1.0, 0.5])), warmup_of(np.array([1.0, 0.5]))
    (2, 0)
    """
    fall = np.flatnonzero(np.diff(rates) <= 0)
    return int(fall[0]) if fall.size else rates.size - 1


def scatter(values: Floats) -> float:
    """Robust standard deviation of the noise on a smooth series, from its second differences."""
    if values.size < 3:
        return 0.0
    second = np.diff(values, 2) / np.sqrt(6.0)
    return float(1.4826 * np.median(np.abs(second)))


def rates_of(schedule: Any, steps: int, knob: str = "lr") -> Floats:
    """The rate of steps 0 to ``steps - 1`` from a plan, a schedule, or an array.

    An array that is too short holds its last value, as a schedule does past its end.
    """
    if isinstance(schedule, Plan):
        if knob not in schedule:
            raise CurveError(f"the plan has no knob {knob!r}", place=schedule.name or "plan")
        schedule = schedule[knob]
    times = np.arange(steps, dtype=np.float64)
    if isinstance(schedule, Schedule):
        if schedule.needs_horizon:
            schedule = schedule.resolve(steps)
        return np.asarray(schedule(times), dtype=np.float64)
    values = np.atleast_1d(np.asarray(schedule, dtype=np.float64))
    if values.ndim != 1 or not values.size:
        raise CurveError("rates must be a plan, a schedule or a list of numbers", value=schedule)
    if values.size >= steps:
        return values[:steps]
    return np.concatenate([values, np.full(steps - values.size, values[-1])])


def clean(
    name: str,
    loss: Series,
    rate: Series | None,
    *,
    schedule: Any = None,
    warmup: int | None = None,
    spikes: str = "drop",
    notes: tuple[str, ...] = (),
) -> Curve:
    """Make a curve from what was logged.

    The rules, each noted when it applies:

    - Where a step comes again (a resumed run), the rows written later replace the earlier ones
      from that step on. A log that goes back to its very first step is refused: it probably holds
      several runs.
    - NaN, infinite and non-positive losses are left out.
    - A point is a spike if log loss lies above the median of the nine around it by more than
      eight robust standard deviations and by more than 2 %; spikes are left out.
    - Gaps are kept; one is noted if it is longer than five usual distances.
    - The rate between two logged values is interpolated, except across a drop between two
      stretches of constant rate: that is put in the middle. Before the first logged value it rises
      linearly from zero, if that value is not at step 0; after the last it is held.

    Args:
        name: The run's name.
        loss: The logged losses.
        rate: The logged rates; not needed with a ``schedule``.
        schedule: A plan, a schedule or an array with the rate of every step.
        warmup: First step after warm-up; by default the end of the first rise.
        spikes: "drop", or "keep".
        notes: What the reader noted.
    """
    said = list(notes)
    steps, values = _increasing(loss, name, "loss", said)
    keep = np.isfinite(values) & (values > 0)
    if not keep.all():
        said.append(f"{(~keep).sum()} losses are not finite and above zero: left out")
        steps, values = steps[keep], values[keep]
    if not steps.size:
        raise CurveError("no loss is left", place=name, remedy=". ".join(said))
    if steps[-1] >= MOST_STEPS:
        raise CurveError(
            f"the last step is beyond {MOST_STEPS:g}",
            place=name,
            value=float(steps[-1]),
            remedy="If these are tokens, divide by the tokens per step",
        )
    if spikes == "drop":
        high = spikes_of(np.log(values))
        if high.any():
            at = ", ".join(f"{s:g}" for s in steps[high][:5])
            more = ", ..." if high.sum() > 5 else ""
            said.append(f"{high.sum()} spikes left out, at step {at}{more}")
            steps, values = steps[~high], values[~high]
    elif spikes != "keep":
        raise CurveError("must be 'drop' or 'keep'", place="spikes", value=spikes)
    _note_gaps(steps, said)
    length = int(steps[-1]) + 1
    if schedule is not None:
        rates = rates_of(schedule, length)
    elif rate is not None:
        rates = _reconstruct(rate, length, warmup, name, said)
    else:
        raise CurveError("no learning rate", place=name, remedy="Give plan=...")
    return Curve(name, steps, values, rates, -1 if warmup is None else warmup, tuple(said))


def _increasing(
    series: Series, name: str, what: str, said: list[str]
) -> tuple[NDArray[np.int64], Floats]:
    """The points with increasing whole steps, later rows replacing earlier ones."""
    steps, values = series.steps, series.values
    good = np.isfinite(steps) & (steps >= 0) & (steps <= 2.0**53)
    if not good.all():
        said.append(f"{(~good).sum()} rows of {what} have no valid step: left out")
        steps, values = steps[good], values[good]
    if not steps.size:
        raise CurveError(f"no {what} with a valid step", place=name)
    # The lowest step that is written later on; a row survives if it lies below that.
    later = np.minimum.accumulate(np.append(steps, np.inf)[::-1])[::-1][1:]
    kept = steps < later
    back = np.flatnonzero(np.diff(steps) < 0)
    again = steps.size - kept.sum()
    if again:
        if back.size and steps[back + 1].min() <= steps[0] and steps.size > 2:
            raise CurveError(
                f"the {what} goes back to its first step",
                place=name,
                value=float(steps[back + 1].min()),
                remedy="If the log holds several runs, add a column 'run' that names them, or "
                "split it; if it was resumed from the start, delete the rows before that",
            )
        said.append(f"{again} rows of {what} were written again later (a resumed run): replaced")
    whole = np.rint(steps[kept])
    if (whole != steps[kept]).any():
        raise CurveError(
            "steps must be whole numbers",
            place=name,
            value=float(steps[kept][whole != steps[kept]][0]),
            remedy="Name the column that counts updates with step=...",
        )
    return whole.astype(np.int64), values[kept]


def spikes_of(log_loss: Floats) -> NDArray[np.bool_]:
    """Which points stand out above their neighbours; see `clean`."""
    if log_loss.size < _SPIKE_WINDOW:
        return np.zeros(log_loss.size, dtype=bool)
    half = _SPIKE_WINDOW // 2
    padded = np.pad(log_loss, half, mode="reflect", reflect_type="odd")
    windows = np.lib.stride_tricks.sliding_window_view(padded, _SPIKE_WINDOW)
    above = log_loss - np.median(windows, axis=1)
    spread = 1.4826 * np.median(np.abs(above))
    high: NDArray[np.bool_] = above > max(_SPIKE_SIZE * float(spread), _SPIKE_LEAST)
    high[:half] = False  # the steep start of training is no spike
    return high


def _note_gaps(steps: NDArray[np.int64], said: list[str]) -> None:
    if steps.size < 3:
        return
    distance = np.diff(steps)
    wide = np.flatnonzero(distance > _GAP * np.median(distance))
    said.extend(f"no loss between steps {steps[i]} and {steps[i + 1]}" for i in wide[:3])
    if wide.size > 3:
        said.append(f"and {wide.size - 3} more gaps")


def _reconstruct(
    rate: Series, length: int, warmup: int | None, name: str, said: list[str]
) -> Floats:
    steps, values = _increasing(rate, name, "rate", said)
    good = np.isfinite(values) & (values >= 0)
    steps, values = steps[good], values[good]
    if not steps.size or values.max() <= 0:
        raise CurveError("no learning rate above zero was logged", place=name)
    knots, heights = _split_jumps(steps.astype(np.float64), values)
    first = int(steps[0])
    if first > 0:
        end = first if warmup is None else min(warmup, first)
        if warmup is None and first > 1:
            said.append(
                f"the rate before step {first} was not logged: taken as rising linearly from 0 "
                "(say otherwise with warmup=... or plan=...)"
            )
        ramp = np.array([[0.0, 0.0], [end, values[0]]])[0 if end else 1 :]
        ramp = ramp[ramp[:, 0] < first]
        knots, heights = np.append(ramp[:, 0], knots), np.append(ramp[:, 1], heights)
    usual = float(np.median(np.diff(steps))) if steps.size > 1 else 0.0
    if steps[-1] < length - 2 - 2 * usual:
        said.append(f"the rate after step {steps[-1]} was not logged: taken as constant")
    return np.asarray(np.interp(np.arange(length), knots, heights))


def _split_jumps(steps: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Knots of the rate, with a jump in the middle of a gap between two constant stretches."""
    knots, heights = [steps[:1]], [values[:1]]
    flat = np.abs(np.diff(values)) <= _FLAT * values.max()
    for i in range(1, steps.size):
        before = i >= 2 and flat[i - 2]
        after = i < flat.size and flat[i]
        if not flat[i - 1] and before and after and steps[i] - steps[i - 1] > 1:
            middle = np.ceil((steps[i - 1] + steps[i]) / 2)
            knots.append(np.array([middle - 1, middle]))
            heights.append(np.array([values[i - 1], values[i]]))
        knots.append(steps[i : i + 1])
        heights.append(values[i : i + 1])
    return np.concatenate(knots), np.concatenate(heights)


def listed(curves: Any) -> list[Curve]:
    """Curves as a list, from one curve, a list or a mapping."""
    if isinstance(curves, Curve):
        return [curves]
    found = list(curves.values()) if isinstance(curves, Mapping) else list(curves)
    if not found or not all(isinstance(curve, Curve) for curve in found):
        raise CurveError("curves must be loss curves, as laws.load gives them", value=found)
    return found
