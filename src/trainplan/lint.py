"""Find what people get wrong in a plan, before it costs a run.

Every finding says where, what, and what to do about it. Errors are plans that cannot run; warnings
are plans that most likely do not do what was meant; notes are worth knowing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from trainplan.errors import PlanError
from trainplan.knobs import Knob
from trainplan.plan import Plan
from trainplan.schedules.base import Resolved, Schedule
from trainplan.schedules.durations import Duration, Span
from trainplan.schedules.phases import Sequence
from trainplan.schedules.registry import Named

Level = Literal["error", "warning", "note"]

_LOW: Final = 0.5
"""A rate that ends above this share of its peak has not decayed."""
_REACHED: Final = 0.999
_POINTS: Final = 20_001


@dataclass(frozen=True)
class Finding:
    """One thing that the linter found.

    Attributes:
        level: ``error``, ``warning`` or ``note``.
        place: Where, such as ``lr.phases[1]``.
        message: What is the matter.
        remedy: What to do about it.
    """

    level: Level
    place: str
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.level}: {self.place}: {self.message}. {self.remedy}"


def check(plan: Plan) -> list[Finding]:
    """What is wrong, or likely wrong, with a plan; an empty list if nothing was found.

    >>> import trainplan as tp
    >>> plan = tp.Plan(horizon=100, lr=tp.schedules.wsd(1e-3, warmup="80%", decay="30%"))
    >>> for finding in check(plan):
    ...     print(finding.level, finding.place, finding.message)
    error lr the decay ('30%') begins at 70, before the warm-up ('80%') ends at 80
    """
    findings: list[Finding] = []
    for name, knob in plan.knobs.items():
        parts = knob if isinstance(knob, tuple) else (knob,)
        for i, part in enumerate(parts):
            if isinstance(part, Schedule):
                place = f"{name}[{i}]" if isinstance(knob, tuple) else name
                findings += _check_schedule(plan, name, place, part)
    if plan.data is not None:
        from trainplan.lint_data import check_data

        findings += [Finding(level, *told) for level, *told in check_data(plan)]
    return findings + list(_adam_betas(plan))


def _check_schedule(plan: Plan, name: str, place: str, schedule: Schedule) -> list[Finding]:
    try:
        ready = (
            schedule
            if plan.horizon is None
            else schedule.resolve(plan.horizon, unit=plan.unit, **plan.rates)
        )
        _ = ready.curve
    except PlanError as error:
        return [_cannot_run(plan, place, schedule, error)]
    if plan.horizon is None:
        return []
    view = _View(plan, name, place, schedule, ready)
    return [finding for rule in _RULES for finding in rule(view)]


@dataclass(frozen=True)
class _View:
    """One schedule of a plan, as the rules see it."""

    plan: Plan
    knob: str
    place: str
    schedule: Schedule
    ready: Schedule

    @property
    def horizon(self) -> float:
        return self.plan.horizon or math.inf

    @property
    def is_rate(self) -> bool:
        return self.knob == "lr" or self.knob.endswith("_lr")

    def used(self) -> np.ndarray:
        """The values at the updates that will be made (at most some twenty thousand)."""
        last = self.horizon - 1 if self.plan.unit == "steps" else self.horizon
        if self.plan.unit == "steps" and self.horizon <= _POINTS:
            times = np.arange(int(self.horizon), dtype=np.float64)
        else:
            marks = [b for b in self.ready.curve.bounds() if b <= last]
            times = np.unique(np.concatenate([marks, np.linspace(0, max(last, 0), _POINTS)]))
            times = np.floor(times) if self.plan.unit == "steps" else times
        return np.asarray(self.ready(times))


def _cannot_run(plan: Plan, place: str, schedule: Schedule, error: PlanError) -> Finding:
    overlap = _overlap(plan, schedule)
    if overlap:
        warmup, decay, rises, falls = overlap
        return Finding(
            "error",
            place,
            f"the decay ({decay!r}) begins at {falls:g}, before the warm-up ({warmup!r}) ends at "
            f"{rises:g}",
            "Shorten one of them",
        )
    what = PlanError(error.problem, value=error.value) if error.has_value else error.problem
    return Finding("error", error.inside(place).place, str(what), error.remedy or "Correct it")


def _overlap(plan: Plan, schedule: Schedule) -> tuple[Any, Any, float, float] | None:
    """Warm-up and decay of a named schedule that do not fit into the horizon together."""
    if not isinstance(schedule, Named) or plan.horizon is None:
        return None
    span = Span.of(plan.horizon, plan.unit, plan.rates)
    bound = schedule.full_arguments()
    if bound.get("warmup") is None or bound.get("decay") is None or bound.get("decay_start"):
        return None
    try:
        rises = span.measure(Duration.parse(bound["warmup"]))
        falls = plan.horizon - span.measure(Duration.parse(bound["decay"]))
    except PlanError:
        return None
    return (bound["warmup"], bound["decay"], rises, falls) if falls < rises else None


def _first_update_at_zero(view: _View) -> Iterator[Finding]:
    if view.is_rate and view.ready(0) == 0:
        yield Finding(
            "warning",
            view.place,
            "the first update is made at rate 0 and changes nothing",
            "Start the warm-up above zero (skip_zero=True), unless you compare with code that does "
            "the same",
        )


def _past_the_horizon(view: _View) -> Iterator[Finding]:
    bounds = view.ready.curve.bounds()
    length = view.ready.curve.length
    if not math.isfinite(length) or length <= view.horizon:
        return
    late = [b for b in bounds[:-1] if b >= view.horizon]
    what = (
        f"a phase begins at {late[0]:g}, after the run has ended, and is never reached"
        if late
        else "its last phase is cut off by the end of the run"
    )
    yield Finding(
        "warning",
        view.place,
        f"the schedule lasts {length:g} {view.plan.unit}, the run {view.horizon:g}: {what}",
        "Lengthen the horizon, or write durations as percentages",
    )


def _ends_early(view: _View) -> Iterator[Finding]:
    length = view.ready.curve.length
    last = view.ready.curve.last
    if length < view.horizon and view.is_rate and last == 0:
        yield Finding(
            "warning",
            view.place,
            f"the rate is 0 from {length:g} on: the last {view.horizon - length:g} "
            f"{view.plan.unit} change nothing",
            "Shorten the horizon, or let the last phase take what is left",
        )
    elif length < view.horizon and view.ready.curve.bounds() != [0, length]:
        yield Finding(
            "note",
            view.place,
            f"the schedule ends at {length:g} and holds {last:g} until {view.horizon:g}",
            "Nothing to do if that is meant",
        )


def _never_decays(view: _View) -> Iterator[Finding]:
    if not view.is_rate:
        return
    values = view.used()
    peak = float(values.max())
    if peak > 0 and float(values[-1]) > _LOW * peak:
        yield Finding(
            "warning",
            view.place,
            f"the rate ends at {values[-1]:.3g}, {values[-1] / peak:.0%} of its peak: it never "
            "decays, although the horizon ends",
            "Add a decay, branch one off at the end (plan.branch), or average checkpoints",
        )


def _peak_never_reached(view: _View) -> Iterator[Finding]:
    schedule = view.schedule
    if not isinstance(schedule, Named):
        return
    peak = schedule.full_arguments().get("peak")
    if not isinstance(peak, (int, float)) or peak <= 0 or schedule.name == "power":
        return
    highest = float(view.used().max())
    if highest < _REACHED * peak:
        yield Finding(
            "warning",
            view.place,
            f"the peak {peak:g} is never reached: the highest value used is {highest:.3g}",
            "Shorten the warm-up or lengthen the run",
        )


def _lost_phase(view: _View) -> Iterator[Finding]:
    """Relative phases that were cut down to nothing."""
    body = view.schedule.body if isinstance(view.schedule, Named) else view.schedule
    if not isinstance(body, Sequence) or not isinstance(view.ready, Resolved):
        return
    for i, (piece, length) in enumerate(
        zip(body.pieces, body.lengths(view.ready.span), strict=True)
    ):
        asked = piece.duration
        if length == 0 and (asked is None or asked.amount > 0):
            yield Finding(
                "warning" if asked is not None else "note",
                f"{view.place}.phases[{i}]",
                f"the phase ({asked if asked is not None else 'what is left'}) has no step in a "
                f"run of {view.horizon:g}",
                "Lengthen it or the run, or leave it out",
            )


_RULES: Final[tuple[Callable[[_View], Iterator[Finding]], ...]] = (
    _first_update_at_zero,
    _past_the_horizon,
    _ends_early,
    _never_decays,
    _peak_never_reached,
    _lost_phase,
)


def _adam_betas(plan: Plan) -> Iterator[Finding]:
    """Adam corrects its bias with the current beta to the power of the whole step count."""
    knob: Knob | None = plan.knobs.get("betas")
    if not isinstance(knob, tuple) or plan.horizon is None or plan.unit != "steps":
        return
    for i, beta in enumerate(knob):
        try:
            ready = beta.resolve(plan.horizon, unit=plan.unit, **plan.rates)
        except PlanError:
            return  # already reported
        first = float(ready(0))
        if not 0 <= first < 1:
            continue
        early = np.arange(min(plan.horizon, math.ceil(5 / (1 - first))), dtype=np.float64)
        if early.size > 1 and float(np.asarray(ready(early)).max()) > first:
            yield Finding(
                "warning",
                f"betas[{i}]",
                f"it rises within the first {early.size} steps, which breaks Adam's bias "
                "correction and makes updates too large",
                "Raise it later, or start where it should be",
            )
