"""Read schedules from the plain form that plan files hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, ParamSpec, TypeVar

from trainplan.errors import PlanError, located, nearest
from trainplan.schedules import algebra, controllers, phases
from trainplan.schedules.base import Schedule
from trainplan.schedules.phases import Constant, Hold, Phase, Sequence, Take
from trainplan.schedules.registry import REGISTRY, Entry, register_node
from trainplan.schedules.values import is_number

P = ParamSpec("P")
T = TypeVar("T")

for _name, _class in {
    "clipped": algebra.Clipped,
    "inverse_sigmoid": phases.InverseSigmoid,
    "overlaid": algebra.Overlaid,
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
_NODES = ("hold", "phase", "phases", "product", "resolve", "sum", "take")
"""What a plan file can name beside the registered schedules."""


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
    if is_number(plain):
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
    if name in ("phase", "take", "hold"):
        item, where = (plain, place) if name == "hold" else (given, inner)
        return _piece(item, where, depth)
    if name in ("sum", "product"):
        return _pair(name, given, inner, depth)
    if name == "resolve":
        return _resolved(given, inner, depth)
    if name == "constant" and is_number(given):
        return _at(inner, Constant, given)
    if name not in REGISTRY:
        known = [*REGISTRY, *_NODES]
        if name in controllers.CONTROLLERS:
            raise PlanError("a controller cannot stand inside a schedule", place=place, value=name)
        raise PlanError(
            "unknown schedule", place=place, value=name, remedy=nearest(str(name), known)
        )
    return _call(REGISTRY[name], given, inner, depth)


def _call(entry: Entry, given: Any, place: str, depth: int) -> Schedule:
    args, kwargs = arguments(given, place)
    if entry.nested and args:
        args, kwargs = (), _by_position(list(entry.parameters), args, place)
    for key in entry.nested:
        if key in kwargs:
            kwargs[key] = parse(kwargs[key], f"{place}.{key}", depth + 1)
    return _at(place, entry.make, args, kwargs)


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
    pieces = [_piece(item, f"{place}[{i}]", depth) for i, item in enumerate(given)]
    # Its own errors already begin with "phases".
    return _at(place.removesuffix("phases").removesuffix("."), Sequence, *pieces)


def _piece(item: Any, place: str, depth: int) -> phases.Piece:
    if not isinstance(item, dict) or not item:
        raise PlanError(
            "not a phase",
            place=place,
            value=item,
            remedy="Write {start: ..., end: ..., duration: ...} or {hold: {...}}",
        )
    if set(item) == {"hold"}:
        inner = f"{place}.hold" if place else "hold"
        args, kwargs = arguments(item["hold"], inner)
        names = [field.name for field in fields(Hold)]
        return _phase(Hold, _by_position(names, args, inner) | kwargs, inner)
    if "schedule" in item:
        schedule = parse(item["schedule"], f"{place}.schedule", depth + 1)
        return _phase(Take, dict(item) | {"schedule": schedule}, place)
    return _phase(Phase, {"start": None, "end": None} | dict(item), place)


def _phase(cls: type[Phase | Hold | Take], given: dict[str, Any], place: str) -> phases.Piece:
    known = [field.name for field in fields(cls)]
    for key, value in given.items():
        if key not in known:
            raise PlanError(
                "a phase has no such field",
                place=f"{place}.{key}",
                value=value,
                remedy=nearest(str(key), known),
            )
    make: Callable[..., phases.Piece] = cls
    return _at(place, make, **given)


def _by_position(names: list[str], args: tuple[Any, ...], place: str) -> dict[str, Any]:
    if len(args) > len(names):
        remedy = f"There are: {', '.join(names)}"
        raise PlanError("too many values", place=place, value=list(args), remedy=remedy)
    return dict(zip(names, args, strict=False))


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


def _at(place: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function with what stands at ``place``."""
    try:
        return located(place, function, *args, **kwargs)
    except TypeError as error:
        raise PlanError(str(error), place=place, value=kwargs or args) from None
