"""Reading numbers that people wrote: finite floats, whole counts and levels."""

from __future__ import annotations

import hashlib
import json
import math
from numbers import Integral, Real
from typing import Any, TypeGuard

from trainplan.errors import PlanError


def is_number(value: Any) -> TypeGuard[float]:
    """Whether something is a number; truth values are none.

    >>> is_number(3), is_number(True), is_number("3")
    (True, False, False)
    """
    return isinstance(value, Real) and not isinstance(value, bool)


def finite(value: Any, place: str = "") -> float:
    """``value`` as a finite float.

    >>> finite(3)
    3.0
    """
    if not is_number(value):
        raise PlanError("not a number", place=place, value=value, remedy="Write a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise PlanError("not a finite number", place=place, value=value, remedy="Write a number")
    return number


def rate(value: Any, place: str) -> float:
    """``value`` as a finite number above zero; a whole number stays one."""
    number = finite(value, place)
    if number <= 0:
        raise PlanError("a rate must be a number above zero", place=place, value=value)
    return int(value) if isinstance(value, Integral) else number


def count(value: Any, place: str = "", least: int = 1, most: int = 2**53) -> int:
    """``value`` as a whole number from ``least`` to ``most``."""
    whole = isinstance(value, Integral) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not whole or not least <= int(value) <= most:
        limit = "or more" if most == 2**53 else f"to {most}"
        raise PlanError(
            "not a whole number in its range",
            place=place,
            value=value,
            remedy=f"Write {least} {limit}",
        )
    return int(value)


def level(value: Any, of: float, place: str = "end") -> float:
    """A value, or a percentage of another one (of the peak, as a rule).

    >>> level("10%", of=3.0)
    0.30000000000000004
    """
    if isinstance(value, str):
        text = value.strip()
        try:
            share = finite(float(text.removesuffix("%")), place) / 100
        except ValueError:
            share = math.nan
        if not text.endswith("%") or not math.isfinite(share):
            raise PlanError(
                "not a level", place=place, value=value, remedy="Write a number or a '10%' of peak"
            )
        return share * of
    return finite(value, place)


def digest_of(plain: Any) -> str:
    """A hash of plain data in which 2 and 2.0 are the same number.

    >>> digest_of({"peak": 2}) == digest_of({"peak": 2.0})
    True
    """
    text = json.dumps(_canonical(plain), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _canonical(plain: Any) -> Any:
    if isinstance(plain, dict):
        return {key: _canonical(value) for key, value in plain.items()}
    if isinstance(plain, (list, tuple)):
        return [_canonical(item) for item in plain]
    return int(plain) if isinstance(plain, float) and plain.is_integer() else plain
