"""Read schedules from the plain form that plan files hold."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any

from trainplan.errors import PlanError, nearest
from trainplan.schedules import algebra, controllers, phases
from trainplan.schedules.base import Schedule
from trainplan.schedules.phases import Constant, Hold, Phase, Sequence, Take
from trainplan.schedules.registry import REGISTRY, register_node

for _name, _class in {
    "clipped": algebra.Clipped,
    "power_law": phases.PowerLaw,
    "profile": phases.Profile,
    "repeated": algebra.Repeated,
    "sampled": algebra.Sampled,
    "scaled": algebra.Scaled,
    "shifted": algebra.Shifted,
    "stairs": phases.Stairs,
    "stretched": algebra.Stretched,
}.items():
    register_node(_name, _class)

_DEEPEST = 50


def from_dict(plain: Any) -> Schedule:
    """The schedule that `Schedule.to_dict` wrote.

    >>> from_dict({"linear": {"peak": 0.3, "end": 0.15}})
    linear(peak=0.3, end=0.15)
    """
    return parse(plain, "")


def parse(plain: Any, place: str, depth: int = 0) -> Schedule:
    """Read one schedule; errors name the place.

    Args:
        plain: A number, or a dictionary with one key, the name of the schedule.
        place: Where it stands, such as ``plan.yaml: lr``.
        depth: How deep it is nested.
    """
    if depth > _DEEPEST:
        raise PlanError("nested too deeply", place=place, remedy="Write it more simply")
    if isinstance(plain, Schedule):
        return plain
    if isinstance(plain, Real) and not isinstance(plain, bool):
        return _at(place, Constant, plain)
    if not isinstance(plain, dict) or len(plain) != 1:
        raise PlanError(
            "not a schedule",
            place=place,
            value=plain,
            remedy="Write a number, or one name with its parameters, such as cosine: {peak: 3e-4}",
        )
    ((name, given),) = plain.items()
    inner = f"{place}.{name}" if place else str(name)
    if name == "phases":
        return _sequence(given, inner, depth)
    if name in ("sum", "product"):
        return _pair(name, given, inner, depth)
    if name == "resolve":
        return _resolved(given, inner, depth)
    if name == "constant" and isinstance(given, Real):
        return _at(inner, Constant, given)
    if name not in REGISTRY:
        known = [*REGISTRY, "phases", "sum", "product"]
        if name in controllers.CONTROLLERS:
            raise PlanError("a controller cannot stand inside a schedule", place=place, value=name)
        raise PlanError(
            "unknown schedule", place=place, value=name, remedy=nearest(str(name), known)
        )
    return _call(REGISTRY[name].build, name, given, inner, depth)


def _call(build: Callable[..., Any], name: str, given: Any, place: str, depth: int) -> Schedule:
    import trainplan.schedules as room

    make = getattr(room, name, build)
    args, kwargs = arguments(given, place)
    parameters = REGISTRY[name].parameters
    if "schedule" in parameters:
        if args:
            kwargs |= dict(zip(parameters, args, strict=False))
            args = ()
        if "schedule" in kwargs:
            kwargs["schedule"] = parse(kwargs["schedule"], f"{place}.schedule", depth + 1)
    if name in room.NAMED:
        return _at(place, make, *args, **kwargs)
    return _at(place, lambda: build(**REGISTRY[name].bind(args, kwargs)))


def arguments(given: Any, place: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and named arguments from a list, a mapping or a single value."""
    if given is None:
        return (), {}
    if isinstance(given, dict):
        for key in given:
            if not isinstance(key, str):
                raise PlanError("a parameter's name must be text", place=place, value=key)
        return (), dict(given)
    return (tuple(given), {}) if isinstance(given, list) else ((given,), {})


def _sequence(given: Any, place: str, depth: int) -> Schedule:
    if not isinstance(given, list):
        raise PlanError("must be a list of phases", place=place, value=given)
    base = place.removesuffix("phases")
    pieces = [_piece(item, f"{place}[{i}]", depth) for i, item in enumerate(given)]
    try:
        return Sequence(*pieces)
    except PlanError as error:
        raise error.inside(base.removesuffix(".")) from None


def _piece(item: Any, place: str, depth: int) -> phases.Piece:
    if not isinstance(item, dict) or not item:
        raise PlanError(
            "not a phase",
            place=place,
            value=item,
            remedy="Write {start: ..., end: ..., duration: ...} or {hold: {...}}",
        )
    if set(item) == {"hold"}:
        args, kwargs = arguments(item["hold"], f"{place}.hold")
        return _fields(Hold, args, kwargs, f"{place}.hold")
    if "schedule" in item:
        schedule = parse(item["schedule"], f"{place}.schedule", depth + 1)
        return _fields(Take, (), dict(item) | {"schedule": schedule}, place)
    return _fields(Phase, (), {"start": None, "end": None} | dict(item), place)


def _fields(
    cls: Callable[..., Any], args: tuple[Any, ...], given: dict[str, Any], place: str
) -> Any:
    import dataclasses

    known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    named = dict(zip(known, args, strict=False)) | given
    for key in named:
        if key not in known:
            raise PlanError(
                "a phase has no such field",
                place=f"{place}.{key}",
                value=named[key],
                remedy=nearest(str(key), known),
            )
    return _at(place, cls, **named)


def _pair(name: str, given: Any, place: str, depth: int) -> Schedule:
    if not isinstance(given, list) or len(given) != 2:
        raise PlanError("needs a list of two schedules", place=place, value=given)
    left, right = (parse(item, f"{place}[{i}]", depth + 1) for i, item in enumerate(given))
    return algebra.Sum(left, right) if name == "sum" else algebra.Product(left, right)


def _resolved(given: Any, place: str, depth: int) -> Schedule:
    if not isinstance(given, dict) or not {"schedule", "horizon"} <= set(given):
        raise PlanError("needs a schedule and a horizon", place=place, value=given)
    rest = {key: value for key, value in given.items() if key not in ("schedule", "horizon")}
    schedule = parse(given["schedule"], f"{place}.schedule", depth + 1)
    return _at(place, schedule.resolve, given["horizon"], **rest)


def _at(place: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    try:
        return function(*args, **kwargs)
    except PlanError as error:
        raise error.inside(place) from None
    except TypeError as error:
        raise PlanError(str(error), place=place, value=kwargs or args) from None
