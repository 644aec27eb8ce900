"""What drives one knob of a plan: a schedule, several of them, or a controller."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeGuard

from trainplan.errors import PlanError
from trainplan.schedules import controllers, reading
from trainplan.schedules.base import Schedule
from trainplan.schedules.controllers import Controller

Value = float | tuple[float, ...]
"""What a knob is set to: a number, or several (betas)."""
Knob = Schedule | tuple[Schedule, ...] | Controller
"""What drives a knob."""


def read_knob(plain: Any, place: str) -> Knob:
    """What drives a knob, from Python objects or from a plan file's data.

    Args:
        plain: A schedule, a number, a controller, several schedules or numbers in a list, or a
            dictionary as in a plan file.
        place: Where it stands, for errors.
    """
    if isinstance(plain, Schedule) or is_controller(plain):
        return plain
    if isinstance(plain, (list, tuple)):
        if not plain:
            raise PlanError("an empty list", place=place, value=plain, remedy="Give numbers")
        return tuple(reading.parse(item, f"{place}[{i}]") for i, item in enumerate(plain))
    if isinstance(plain, dict) and len(plain) == 1:
        ((name, given),) = plain.items()
        if name in controllers.CONTROLLERS:
            args, kwargs = reading.arguments(given, f"{place}.{name}")
            try:
                return controllers.build(name, args, kwargs)
            except PlanError as error:
                raise error.inside(f"{place}.{name}") from None
            except TypeError as error:
                raise PlanError(str(error), place=f"{place}.{name}", value=given) from None
    return reading.parse(plain, place)


def is_controller(knob: Any) -> TypeGuard[Controller]:
    """Whether something listens to the run."""
    return not isinstance(knob, (Schedule, type)) and isinstance(knob, Controller)


def value_at(knob: Knob, t: float) -> Value:
    """The value to use at time ``t``."""
    if isinstance(knob, tuple):
        return tuple(item(t) for item in knob)
    return knob(t) if isinstance(knob, Schedule) else float(knob.value(t))


def plain_knob(knob: Knob) -> Any:
    """The knob as a plan file holds it."""
    return [item.plain() for item in knob] if isinstance(knob, tuple) else knob.plain()


def knob_digest(knob: Knob) -> Any:
    """What stands for the knob in the digest of a plan."""
    if isinstance(knob, tuple):
        return [item.digest for item in knob]
    return knob.digest if isinstance(knob, Schedule) else knob.plain()


def map_schedules(knob: Knob, function: Callable[[Schedule], Schedule]) -> Knob:
    """The knob with a function applied to each of its schedules."""
    if isinstance(knob, tuple):
        return tuple(function(item) for item in knob)
    return function(knob) if isinstance(knob, Schedule) else knob
