"""The two errors of the package, and how their messages are made."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
_MISSING = object()


class MissingExtraError(ModuleNotFoundError):
    """An optional dependency is not installed; the message holds the command that installs it."""


class PlanError(ValueError):
    """Something a person wrote cannot be meant, with the place, the value and the remedy.

    Attributes:
        problem: What is wrong, in one clause.
        place: Where, such as ``plan.yaml: lr.phases[1].duration``; empty if it is not known yet.
        value: The offending value, if there is one.
        remedy: What to do about it.
    """

    def __init__(
        self, problem: str, *, place: str = "", value: Any = _MISSING, remedy: str = ""
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.place = place
        self.value = value
        self.remedy = remedy

    @property
    def has_value(self) -> bool:
        """Whether there is an offending value."""
        return self.value is not _MISSING

    def __str__(self) -> str:
        text = f"{self.place}: {self.problem}" if self.place else self.problem
        if self.has_value:
            text += f" (got {short_repr(self.value)})"
        return f"{text}. {self.remedy}" if self.remedy else text

    def __reduce__(self) -> tuple[Any, ...]:
        value = self.value if self.has_value else None
        return _rebuild, (self.problem, self.place, value, self.has_value, self.remedy)

    def inside(self, place: str) -> PlanError:
        """The same error seen from outside: ``place`` is put before its own place."""
        own = self.place
        joined = own if not place else place if not own else place + _joint(place, own) + own
        return PlanError(self.problem, place=joined, value=self.value, remedy=self.remedy)


def _rebuild(problem: str, place: str, value: Any, has_value: bool, remedy: str) -> PlanError:
    return PlanError(problem, place=place, value=value if has_value else _MISSING, remedy=remedy)


def _joint(outer: str, inner: str) -> str:
    return "" if inner.startswith("[") or outer.endswith(": ") else "."


def located(place: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function; a `PlanError` that comes out of it is told where ``place`` is."""
    try:
        return function(*args, **kwargs)
    except PlanError as error:
        raise error.inside(place) from None


def short_repr(value: Any, limit: int = 80) -> str:
    """``repr(value)``, cut to about ``limit`` characters."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def nearest(name: Any, known: Iterable[str]) -> str:
    """A remedy for an unknown name: the nearest known one, or all of them.

    >>> nearest("cosin", ["cosine", "linear"])
    "Did you mean 'cosine'?"
    """
    names = sorted(known)
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.6)
    if close:
        return f"Did you mean {close[0]!r}?"
    return "Known: " + ", ".join(names)
