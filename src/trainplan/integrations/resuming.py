"""What a checkpoint remembers of a plan, so that a resumed run keeps its past.

A schedule needs no memory: the plan in the code is evaluated at the step that was reached. But if
that plan is not the one the run began with, the values that were used and the values that it now
claims differ, and every later comparison is with a run that never took place. So the schedules are
written into the checkpoint, and compared when it is loaded. They are never used instead of the
code's, except to go on with an extension that an earlier resumption has made of the same plan.
"""

from __future__ import annotations

import json
from typing import Any

from trainplan.errors import PlanError
from trainplan.knobs import is_controller
from trainplan.plan import Plan


def written(plan: Plan) -> dict[str, Any]:
    """The schedules of a plan as JSON data; controllers keep their own state.

    >>> import trainplan as tp
    >>> written(tp.Plan(horizon=10, lr=tp.schedules.linear(0.5)))
    {'horizon': 10, 'lr': {'linear': {'peak': 0.5}}}
    """
    plain = {key: value for key, value in plan.to_dict().items() if key not in plan.controllers}
    result: dict[str, Any] = json.loads(json.dumps(plain))
    return result


def remember(given: Plan, used: Plan) -> dict[str, Any]:
    """What to save: the plan as the code gives it, and as it is used (extended, maybe)."""
    return {"given": written(given), "used": written(used)}


def recall(memory: dict[str, Any], given: Plan, at: float) -> Plan:
    """The plan to go on with after ``at`` completed units.

    Args:
        memory: What `remember` returned for the run so far.
        given: The plan that the code gives now.
        at: Completed units.

    Raises:
        PlanError: If the plan in the code has another past than the run.

    >>> import trainplan as tp
    >>> plan = tp.Plan(horizon=10, lr=tp.schedules.wsd(0.1, warmup="20%", decay="20%"))
    >>> longer = plan.extend(at=5, horizon=20)
    >>> recall(remember(plan, longer), plan, at=6).horizon
    20
    >>> try:
    ...     recall(remember(plan, plan), plan.replace(horizon=20), at=5)
    ... except tp.PlanError as error:
    ...     print(error.problem)
    the past would change, first at step 1: it was 0.05 and would be 0.025
    """
    now = written(given)
    if memory["used"] == now:
        return given
    past = _read(memory["used"], given)
    if memory["given"] == now:
        return past
    if past.unit != given.unit:
        raise PlanError(
            f"the run was counted in {past.unit}", place="unit", value=given.unit, remedy=_REMEDY
        )
    try:
        past.check_past(given, at)
    except PlanError as error:
        raise PlanError(error.problem, place=error.place, remedy=_REMEDY) from None
    return given


_REMEDY = (
    "Resume with the plan that the run began with, or make the new one from it: "
    "plan.extend(at, horizon) or plan.branch(at, ...)"
)


def _read(plain: dict[str, Any], given: Plan) -> Plan:
    """A plan with the written schedules, and the controllers and the order that the code has."""
    ours = {name: knob for name, knob in given.knobs.items() if is_controller(knob)}
    knobs = {**plain, **ours}
    order = [*(name for name in given if name in knobs), *knobs]
    return Plan.from_dict({name: knobs[name] for name in dict.fromkeys(order)}, "checkpoint")
