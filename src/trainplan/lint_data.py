"""Find what people get wrong about the data of a plan.

The costliest mistake is to keep the best data for the end and to let the learning rate decay to
nothing by then. Luo et al., 2025, "How Learning Rate Decay Wastes Your Best Data in
Curriculum-Based LLM Pretraining", arXiv 2511.18903.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

import numpy as np

from trainplan.data_plan import DataPlan
from trainplan.errors import PlanError
from trainplan.plan import Plan
from trainplan.schedules.base import Schedule

_POINTS: Final = 20_001
_STEPS: Final = 2_000_000
_LAST: Final = 0.1
"""The part of the data that is looked at: the hardest, which comes last."""
_ALL: Final = 0.99
_WASTED: Final = 1 / 3
"""Less than this part of an even share is too little."""

Found = tuple[Literal["error", "warning", "note"], str, str, str]
"""Level, place, message and remedy."""


def check_data(plan: Plan) -> Iterator[Found]:
    """What is wrong, or likely wrong, with what the model sees."""
    try:
        data = plan.ready_data
    except PlanError as error:
        what = PlanError(error.problem, value=error.value) if error.has_value else error.problem
        yield "error", error.place, str(what), error.remedy or "Correct it"
        return
    if data is None or plan.horizon is None:
        return
    last = plan.horizon - 1 if plan.unit == "steps" else plan.horizon
    times = np.linspace(0, max(last, 0), min(_POINTS, max(int(last) + 1, 2)))
    yield from _outside(data, times)
    yield from _bad_weights(data, times)
    if plan.unit == "steps":
        yield from _bad_sizes(data, np.arange(min(int(last) + 1, _STEPS)))
    else:
        yield from _bad_sizes(data, times.astype(np.int64))
        if data.global_batch is not None:
            yield (
                "error",
                "data.global_batch",
                f"its steps cannot be counted in {plan.unit}, since they change",
                "Count the plan in steps",
            )
    rates = _rates(plan, times)
    if rates is not None:
        yield from _wasted_data(data, times, rates)
        yield from _wasted_domains(data, times, rates)


def last_share(data: DataPlan, times: np.ndarray, rates: np.ndarray) -> float | None:
    """The share of the learning rate's area that the last tenth of the data gets.

    At time t the last tenth is ``max(0, c - 0.9) / c`` of what is shown, c being the open share;
    sorted data are taken to be seen once over the run.
    """
    if data.within == "sorted" and data.difficulty is not None:
        from trainplan.data.quality import rate_share

        return rate_share(rates, top=_LAST)
    opened = data.open_share(times)
    if opened is None:
        return None
    shown = np.maximum(opened - (1 - _LAST), 0) / np.maximum(opened, 1e-12)
    return float((shown * rates).sum() / rates.sum())


def _rates(plan: Plan, times: np.ndarray) -> np.ndarray | None:
    try:
        lr = plan.ready.get("lr")
    except PlanError:
        return None  # reported where the knob is checked
    if not isinstance(lr, Schedule):
        return None
    rates = np.asarray(lr(times), dtype=float)
    return rates if rates.sum() > 0 and (rates >= 0).all() else None


def _wasted_data(data: DataPlan, times: np.ndarray, rates: np.ndarray) -> Iterator[Found]:
    share = last_share(data, times, rates)
    if share is None or share >= _LAST * _WASTED:
        return
    which = "easiest" if data.hardest_first else "hardest"
    place = "data.within" if data.within == "sorted" else "data.pacing"
    yield (
        "warning",
        place,
        f"the last tenth of the data (the {which}) gets {share:.2%} of the learning rate's area, "
        f"where an even share is {_LAST:.0%}: it is met when the rate has vanished",
        "Open all data earlier, decay the rate less or later, or average checkpoints instead of "
        "decaying",
    )


def _wasted_domains(data: DataPlan, times: np.ndarray, rates: np.ndarray) -> Iterator[Found]:
    for name, share in data.shares(times).items():
        seen = float(share.mean())
        area = float((share * rates).sum() / rates.sum())
        if area < seen * _WASTED:
            yield (
                "warning",
                f"data.mixture.{name}",
                f"it is {seen:.2%} of what is seen and gets {area:.2%} of the learning rate's "
                "area: it is met when the rate has vanished",
                "Bring it in earlier, or decay the rate less or later",
            )


def _outside(data: DataPlan, times: np.ndarray) -> Iterator[Found]:
    if data.pacing is None or data.by != "fraction":
        return
    values = np.asarray(data.pacing(times), dtype=float)
    if values.min() < 0 or values.max() > 1:
        yield (
            "warning",
            "data.pacing",
            f"it goes from {values.min():.3g} to {values.max():.3g}; a share of the data is cut "
            "to [0, 1]",
            "Write shares between 0 and 1, or by: value for difficulties",
        )
    elif values.max() < _ALL:
        yield (
            "note",
            "data.pacing",
            f"{1 - values.max():.1%} of the data are never opened",
            "Nothing to do if that is meant",
        )


def _bad_sizes(data: DataPlan, steps: np.ndarray) -> Iterator[Found]:
    """Shapes and batch sizes that cannot be, by their first step; and those that are rounded."""
    from trainplan.data.step_numbers import StepNumbers

    parts: list[tuple[str, Schedule, int, str | None]] = [
        (f"shape.{name}", schedule, data.multiple_of(name), "nearest")
        for name, schedule in (data.shape or {}).items()
    ]
    if data.global_batch is not None:
        parts.append(("global_batch", data.global_batch, data.batch_multiple, data.round))
    for name, schedule, multiple, rounding in parts:
        place = f"data.{name}"
        numbers = StepNumbers(schedule, place, multiple=multiple, round=rounding)  # type: ignore[arg-type]
        try:
            found = numbers.on(steps)
        except PlanError as error:
            yield "error", place, f"{error.problem} (got {error.value:g})", error.remedy or ""
            continue
        raw = np.asarray(schedule(steps), dtype=float)
        if name == "global_batch" and (moved := found != raw).any():
            step = int(moved.argmax())
            yield (
                "note",
                place,
                f"{moved.sum()} steps are rounded, first step {step}: {raw[step]:g} examples to "
                f"{found[step]}",
                "Nothing to do if that is meant",
            )


def _bad_weights(data: DataPlan, times: np.ndarray) -> Iterator[Found]:
    if data.mixture is None:
        return
    whole = np.zeros(times.size)
    for name, schedule in data.mixture.items():
        weights = np.asarray(schedule(times), dtype=float)
        whole += weights
        if weights.min() < 0:
            yield (
                "error",
                f"data.mixture.{name}",
                f"the weight falls to {weights.min():.3g} at {times[weights.argmin()]:g}",
                "Keep weights at 0 or above",
            )
    if (whole == 0).any():
        yield (
            "error",
            "data.mixture",
            f"all weights are zero at {times[np.argmin(whole)]:g}",
            "Give some data set a weight above zero at all times",
        )
