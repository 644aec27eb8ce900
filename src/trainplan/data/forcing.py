"""How often a decoder sees the true token before, and how often the model's own: over training.

Bengio et al., 2015, "Scheduled Sampling for Sequence Prediction with Recurrent Neural Networks",
arXiv 1506.03099, let the share of true tokens fall as a line, an exponential or an inverse sigmoid.
"""

from __future__ import annotations

import math
from typing import Literal

from trainplan.errors import PlanError, nearest
from trainplan.schedules.base import Schedule
from trainplan.schedules.durations import Duration
from trainplan.schedules.phases import Constant, InverseSigmoid, Phase
from trainplan.schedules.shapes import Exponential
from trainplan.schedules.values import finite

KINDS = ("linear", "exponential", "inverse_sigmoid")
_LATE, _LITTLE = 0.8, 0.05  # by default the share is 5 % when 80 % of the run are over


def teacher_forcing(
    kind: Literal["linear", "exponential", "inverse_sigmoid"] = "exponential",
    decay: float | None = None,
    initial: float = 1.0,
    least: float = 0.0,
) -> Schedule:
    """The share of true tokens among the inputs; the rest are the model's own.

    With the decay d and t updates made: ``linear`` is r0 - d t, ``exponential`` r0 d^t, and
    ``inverse_sigmoid`` r0 d / (d + exp(t / d)), which holds for about d log d updates and then
    falls within a few times d: take hundreds or thousands.

    Args:
        kind: Which form.
        decay: d. By default an exponential with 5 % of r0 when 80 % of the run are over, which
            needs a horizon; the other forms have no default.
        initial: r0, in [0, 1].
        least: The share never falls below it.

    Returns:
        A schedule for a plan, a `SelfTokenMixer` or `mix_decoder_inputs`.

    Raises:
        PlanError: If an argument cannot be meant.

    >>> teacher_forcing("linear", 0.001)([0, 100, 2000]).tolist()
    [1.0, 0.9, 0.0]
    >>> round(teacher_forcing().resolve(1000)(800), 4)
    0.05
    """
    if kind not in KINDS:
        raise PlanError("unknown", place="kind", value=kind, remedy=nearest(str(kind), KINDS))
    start, floor = share_of(initial, "initial"), share_of(least, "least")
    if floor > start:
        raise PlanError("above the initial share", place="least", value=least)
    if decay is None:
        if kind != "exponential":
            remedy = "Give decay=..., see the formula"
            raise PlanError(
                "has no default for this kind", place="decay", value=kind, remedy=remedy
            )
        end = _LITTLE ** (1 / _LATE)
        falling: Schedule = Phase(start, start * end, shape=Exponential(ratio=end))
        return falling.clip(floor) if floor else falling
    rate = finite(decay, "decay")
    if rate < 0 or (rate == 0 and kind != "linear") or (kind == "exponential" and rate > 1):
        remedy = "An exponential needs a factor above 0 and at most 1, the others a number above 0"
        raise PlanError("cannot be meant", place="decay", value=decay, remedy=remedy)
    if rate == {"linear": 0, "exponential": 1}.get(kind):
        return Constant(start)
    if kind == "linear":
        return Phase(start, floor, Duration((start - floor) / rate))
    if kind == "inverse_sigmoid":
        falling = InverseSigmoid(start, rate)
    else:
        falling = Phase(start, 0.0, shape=Exponential(half_life=math.log(0.5) / math.log(rate)))
    return falling.clip(floor) if floor else falling


def share_of(value: float, place: str) -> float:
    """A share in [0, 1], or an error that names its place."""
    share = finite(value, place)
    if not 0 <= share <= 1:
        remedy = "Write 0.5 for one half"
        raise PlanError("a share lies in [0, 1]", place=place, value=value, remedy=remedy)
    return share


def resolved_share(value: float | Schedule, place: str) -> float | Schedule:
    """A share in [0, 1], or a schedule over updates that needs no horizon any more."""
    if not isinstance(value, Schedule):
        return share_of(value, place)
    if value.needs_horizon:
        remedy = f"Give {place}.resolve(steps), or plan['{place}']"
        raise PlanError("the schedule needs a horizon", place=place, value=value, remedy=remedy)
    return value
