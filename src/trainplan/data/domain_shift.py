"""Shift a run's weight from a labelled source domain to an unlabelled target domain.

Early on, source labels teach; later the classifier of the source hardly moves any more, and a loss
of consistency on target data counts two to three times as much. Samarasinghe et al., 2023,
"CDFSL-V: Cross-Domain Few-Shot Learning for Videos", arXiv 2309.03989: two arctangents of the
share of the epochs that are done. These are the formulas that the authors describe; their released
script sets the weight to 1 and never reaches the rate of the head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from trainplan.errors import PlanError
from trainplan.schedules.base import Schedule
from trainplan.schedules.curves import Curve
from trainplan.schedules.durations import Duration, Span, optional_duration
from trainplan.schedules.phases import Phase
from trainplan.schedules.shapes import Arctan
from trainplan.schedules.values import finite


@dataclass(frozen=True)
class ArctanRamp(Schedule):
    """``middle + amplitude * arctan(slope * (r - centre)) / (pi / 2)`` after a share r of the run.

    Args:
        middle: Value at the centre.
        amplitude: Distance from the middle to where it would go in the end.
        slope: How sudden it is, 1e-6 to 1e6; a negative one falls.
        centre: Share of the run at which it is fastest, 0 to 1.
        duration: When r is 1; None is the horizon. Later it stays as it is.

    Raises:
        PlanError: If a number is out of its range.

    >>> rising = ArctanRamp(0.05, 0.05, 10, 0.05).resolve(200)
    >>> rising([0, 10, 200]).round(4).tolist()
    [0.0352, 0.05, 0.0967]
    """

    middle: float
    amplitude: float
    slope: float
    centre: float = 0.05
    duration: Duration | None = None

    def __post_init__(self) -> None:
        for name in ("middle", "amplitude", "slope", "centre"):
            object.__setattr__(self, name, finite(getattr(self, name), name))
        object.__setattr__(self, "duration", optional_duration(self.duration, "duration"))
        Arctan(abs(self.slope), self.centre)

    def compile(self, span: Span) -> Curve:
        """With its duration measured."""
        return self._phase.compile(span)

    def plain(self) -> Any:
        """As the phase that it is."""
        return self._phase.plain()

    @property
    def _phase(self) -> Phase:
        start, end = self._at(0.0), self._at(1.0)
        return Phase(start, end, self.duration, Arctan(abs(self.slope), self.centre))

    def _at(self, r: float) -> float:
        turn = math.atan(self.slope * (r - self.centre)) / (math.pi / 2)
        return self.amplitude * turn + self.middle


def consistency_weight(duration: int | float | str | None = None) -> ArctanRamp:
    """The weight of the target's consistency loss: 0.035 at first, 0.05 after 5 %, 0.097 at last.

    The authors read it once per epoch, with r = 1 in the epoch after the last: over 201 epochs,
    ``consistency_weight("200 epochs").sample(every="1 epoch")``.

    Args:
        duration: As for `ArctanRamp`.
    """
    return ArctanRamp(0.05, 0.05, 10, 0.05, optional_duration(duration, "duration"))


def head_rate(duration: int | float | str | None = None) -> ArctanRamp:
    """The learning rate of the source's classifier: 0.0094 at first, 0.005 after 5 %, 3e-5 at last.

    For SGD with momentum 0.9, beside 0.01 for all other parameters, which stays.

    Args:
        duration: As for `ArctanRamp`.
    """
    return ArctanRamp(0.005, 0.005, -100, 0.05, optional_duration(duration, "duration"))


def follow(run: Any, group: int, knob: str) -> Any:
    """Let the learning rate of one parameter group follow a knob of its own.

    Args:
        run: What `trainplan.torch.attach` gave, or a Lightning ``PlanCallback``'s ``run`` once
            fitting has begun (``on_train_start``). It drives the other groups.
        group: Place of the group among the optimizer's.
        knob: Name of the knob in the plan.

    Returns:
        A handle; its ``remove()`` gives the group back to the plan's ``lr``.

    Raises:
        PlanError: If there is no such group or knob.
    """
    groups = run.optimizer.param_groups
    if not -len(groups) <= group < len(groups):
        raise PlanError(
            f"the optimizer has {len(groups)} group(s)",
            place="group",
            value=group,
            remedy="Give the head a group of its own",
        )
    if knob not in run.plan:
        raise PlanError("no such knob in the plan", place="knob", value=knob)

    def set_rate(optimizer: Any, args: Any = (), kwargs: Any = None) -> None:
        optimizer.param_groups[group]["lr"] = float(run.values[knob])

    set_rate(run.optimizer)
    # Hooks run in the order in which they came: this one after that of the run.
    return run.optimizer.register_step_pre_hook(set_rate)
