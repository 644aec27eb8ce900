"""A plan's knobs as functions of a count of updates, for hosts that pass nothing else.

Optax and Keras call a schedule with the number of updates done, an integer inside compiled code.
For a plan in steps that is the time. Tokens, samples and epochs would overflow the hosts' 32-bit
integers or lose their last digits in float32, so such a knob is computed beforehand in float64,
once for each update, and looked up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from trainplan.errors import PlanError
from trainplan.plan import Plan
from trainplan.schedules.base import Schedule
from trainplan.schedules.curves import constants, minimum, to_index

_LONGEST_TABLE = 1 << 22


def by_count(plan: Plan, schedule: Schedule, place: str) -> Callable[[Any], Any]:
    """A schedule of a plan as a function of the number of updates done.

    Args:
        plan: The plan, whose unit and rates say what one update is.
        schedule: One that `Plan.ready` holds.
        place: Its name, for errors.

    Returns:
        A function of one count or an array of them (NumPy, torch, JAX, traced).

    Raises:
        PlanError: If the plan does not say how much data an update has, or has more than four
            million updates in another unit than steps.

    >>> import trainplan as tp
    >>> lr = tp.schedules.linear(1.0)
    >>> plan = tp.Plan(horizon=10e6, unit="tokens", tokens_per_step=1e6, lr=lr)
    >>> by_count(plan, plan["lr"], "lr")(np.asarray([0, 1, 9, 10, 11])).tolist()
    [1.0, 0.9, 0.1, 0.0, 0.0]
    """
    if plan.unit == "steps":
        return schedule
    if plan.horizon is None:
        raise PlanError(
            f"a plan in {plan.unit} needs its length to be counted in updates",
            place="horizon",
            value=None,
            remedy="Give a horizon, or write the plan in steps",
        )
    if not counts_updates(plan):
        rate = "steps_per_epoch" if plan.unit == "epochs" else f"{plan.unit}_per_step"
        raise PlanError(
            f"the host counts updates, and the plan {plan.unit}",
            place=place,
            remedy=f"Give the plan {rate}, or write it in steps",
        )
    last = int(np.ceil(_updates(plan, plan.horizon)))
    if last > _LONGEST_TABLE:
        raise PlanError(
            f"more than {_LONGEST_TABLE} updates in a plan of {plan.unit}",
            place="horizon",
            value=plan.horizon,
            remedy="Write the plan in steps",
        )
    values = schedule(np.asarray(time_after(plan, np.arange(last + 1.0))))
    return lambda count: _look_up(values, count)


def counts_updates(plan: Plan) -> bool:
    """Whether a count of updates is enough to know a plan's time."""
    rate = {"epochs": "steps_per_epoch", "tokens": "tokens_per_step", "samples": "samples_per_step"}
    return plan.unit == "steps" or rate[plan.unit] in plan.rates


def time_after(plan: Plan, updates: Any) -> Any:
    """Completed units of a plan after a number of updates."""
    if plan.unit == "steps":
        return updates
    if plan.unit == "epochs":
        return updates / plan.rates["steps_per_epoch"]
    return updates * plan.rates[f"{plan.unit}_per_step"]


def _updates(plan: Plan, time: float) -> float:
    if plan.unit == "epochs":
        return time * plan.rates["steps_per_epoch"]
    return time / plan.rates[f"{plan.unit}_per_step"]


def _look_up(values: np.ndarray, count: Any) -> Any:
    from array_api_compat import array_namespace

    if isinstance(count, (int, float, np.generic, np.ndarray)):
        found = values[np.minimum(np.asarray(count, dtype=np.int64), values.size - 1)]
        return found if isinstance(count, np.ndarray) else float(found)
    m = array_namespace(count)
    (row,) = constants((values,), count, m)  # type: ignore[arg-type]
    return row[to_index(minimum(count, values.size - 1, m), m)]
