"""Names for schedules: the one table behind Python calls, plan files and their JSON Schema.

The signature of a named schedule says everything: its parameters are checked when it is called,
read from a plan file under the same names, and described in the schema.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import Any, ParamSpec

from trainplan.errors import PlanError, located, nearest
from trainplan.schedules.base import Schedule
from trainplan.schedules.curves import Curve
from trainplan.schedules.durations import LARGEST, Duration, Span
from trainplan.schedules.shapes import Shape
from trainplan.schedules.values import digest_of

P = ParamSpec("P")


@dataclass(frozen=True)
class Entry:
    """A schedule that has a name in plan files.

    Attributes:
        name: The name.
        build: Makes the schedule from its arguments.
        signature: The parameters.
        sentence: Whether it is a published schedule, written in terms of other ones.
    """

    name: str
    build: Callable[..., Schedule]
    signature: inspect.Signature
    sentence: bool = False

    @cached_property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """The parameters by name, in order."""
        return dict(self.signature.parameters)

    @cached_property
    def nested(self) -> tuple[str, ...]:
        """The parameters that are schedules themselves."""
        return tuple(k for k, p in self.parameters.items() if p.annotation == "Schedule")

    def make(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Schedule:
        """The schedule with these arguments."""
        bound = self.bind(args, kwargs)
        try:
            return Named(self.name, bound) if self.sentence else self.build(**bound)
        except TypeError as error:  # such as a number where a list belongs
            raise PlanError(f"{self.name}: {error}", value=bound) from error

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Arguments by name.

        Raises:
            PlanError: If one is unknown, missing or given twice.
        """
        unknown = [key for key in kwargs if key not in self.parameters]
        if unknown:
            raise PlanError(
                f"{self.name} has no parameter of this name",
                place=unknown[0],
                value=kwargs[unknown[0]],
                remedy=nearest(unknown[0], self.parameters),
            )
        try:
            bound = dict(self.signature.bind(*args, **kwargs).arguments)
        except TypeError as error:
            wants = ", ".join(
                name for name, p in self.parameters.items() if p.default is inspect.Parameter.empty
            )
            raise PlanError(
                f"{self.name}: {error}", remedy=f"It needs: {wants}" if wants else ""
            ) from None
        for name, value in bound.items():
            if self.parameters[name].annotation == "bool" and not isinstance(value, bool):
                raise PlanError("neither true nor false", place=name, value=value)
        return bound


REGISTRY: dict[str, Entry] = {}
"""Everything that a plan file can name as a schedule, but for phases."""


class Named(Schedule):
    """A published schedule under its name: one sentence in the language of phases.

    Attributes:
        name: Its name.
        arguments: What was given, by name.
        body: The sentence that it stands for.
    """

    def __init__(self, name: str, arguments: dict[str, Any]) -> None:
        self.name = name
        parameters = REGISTRY[name].parameters
        self.arguments = {
            key: _normal(_shape(value) if parameters[key].annotation == "ShapeLike" else value)
            for key, value in arguments.items()
        }
        self.body = REGISTRY[name].build(**self.arguments)

    def compile(self, span: Span) -> Curve:
        return self.body.compile(span)

    def freeze(self, at: float, span: Span) -> Schedule:
        frozen = self.body.freeze(at, span)
        return self if frozen == self.body else frozen

    def plain(self) -> Any:
        return {self.name: {key: _plain(value) for key, value in self.arguments.items()}}

    def full_arguments(self) -> dict[str, Any]:
        """All arguments by name, those that were left to their defaults included."""
        defaults = {
            key: _normal(parameter.default)
            for key, parameter in REGISTRY[self.name].parameters.items()
            if parameter.default is not inspect.Parameter.empty
        }
        return defaults | self.arguments

    @property
    def digest(self) -> str:
        """A hash of the name and all parameters, the defaults included."""
        full = {key: _plain(value) for key, value in self.full_arguments().items()}
        return digest_of({self.name: full})

    def _key(self) -> tuple[str, str]:
        return self.name, repr(sorted(self.arguments.items()))

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Named) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{k}={v!r}' for k, v in self.arguments.items())})"


def named(build: Callable[P, Schedule]) -> Callable[P, Schedule]:
    """Give a function that writes a schedule its own name in plan files."""
    entry = Entry(build.__name__, build, inspect.signature(build), sentence=True)
    REGISTRY[entry.name] = entry

    @wraps(build)
    def make(*args: P.args, **kwargs: P.kwargs) -> Schedule:
        return entry.make(args, kwargs)

    return make


def register_node(name: str, cls: Callable[..., Schedule]) -> None:
    """Make a kind of schedule readable from plan files under ``name``."""
    REGISTRY[name] = Entry(name, cls, inspect.signature(cls))


def _normal(value: Any) -> Any:
    """One form for equal arguments: tuples for lists and arrays, whole floats as integers."""
    if isinstance(value, (list, tuple)):
        return tuple(_normal(item) for item in value)
    if isinstance(value, dict):
        return {key: _normal(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        return _normal(value.tolist())
    if isinstance(value, float) and value.is_integer() and abs(value) < LARGEST:
        return int(value)
    return value


def _shape(value: Any) -> Any:
    """One form for equal shapes; a name stays a name, and a function a function."""
    from trainplan.schedules.shapes import Custom, parse_shape

    shape = located("shape", parse_shape, value)
    if isinstance(shape, Custom):
        return value
    plain = _normal(shape.plain())
    return plain if isinstance(plain, str) else parse_shape(plain)


def _plain(value: Any) -> Any:
    if isinstance(value, (Schedule, Shape, Duration)):
        return value.plain()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if callable(value):
        from trainplan.schedules.shapes import parse_shape

        return parse_shape(value).plain()
    return value
