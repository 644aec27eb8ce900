"""What every law can do: predict, give its gradient, and be written down and read again."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import numpy as np

from trainplan.errors import PlanError, nearest
from trainplan.laws.curves import Curve, rates_of
from trainplan.laws.readers.raw import Floats
from trainplan.laws.views import View, view_of

_KINDS: dict[str, type[Law]] = {}


@dataclass(frozen=True)
class Prior:
    """What is believed about a fitted parameter before the data: log-normal, in scaled units."""

    center: float
    spread: float


@dataclass(frozen=True)
class Law(ABC):
    """A formula for the loss under any schedule, with the values of its parameters.

    Arrays count from 0: ``rates[t]`` is the rate of step ``t``, and areas at ``t`` include it.
    """

    kind: ClassVar[str]
    units: ClassVar[Mapping[str, str]]
    """The unit of each fitted parameter, in their order."""
    guesses: ClassVar[Mapping[str, float]]
    """Where a fit starts, in scaled units (see `scaled`); L0 is relative to the lowest loss."""
    priors: ClassVar[Mapping[str, Prior]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "kind" in cls.__dict__:
            _KINDS[cls.kind] = cls

    @abstractmethod
    def on(self, view: View) -> Floats:
        """The loss at the view's points; shape (n,)."""

    @abstractmethod
    def slopes(self, view: View) -> tuple[Floats, Floats]:
        """The loss, shape (n,), and its derivatives by the parameters, shape (n, p)."""

    @classmethod
    @abstractmethod
    def scaled(cls, values: Mapping[str, Any], unit: float) -> dict[str, Any]:
        """Parameters in the law's units from those of a fit.

        A fit measures rates in units of ``unit`` = 1000 times the peak, so that areas count
        thousands of steps at the peak and nothing depends on how high the peak is.
        """

    def predict(self, schedule: Any, at: Any = None, *, steps: int = 0, warmup: int = -1) -> Floats:
        """The loss under a schedule.

        Args:
            schedule: A plan, a schedule, or the rate of every step.
            at: Steps at which to predict; by default all of the schedule.
            steps: Length of the run, where the schedule itself has none.
            warmup: Leave out rises up to this step; by default those of the first warm-up.

        Returns:
            In nats; shape (len(at),).
        """
        from trainplan.laws.curves import warmup_of

        rates = rates_of(schedule, steps or length_of(schedule, at))
        return self.on(view_of(rates, at, warmup_of(rates) if warmup < 0 else warmup))

    def residuals(self, curve: Curve) -> Floats:
        """``log(measured) - log(predicted)`` at the points of a curve."""
        view = view_of(curve.rates, curve.steps, curve.warmup)
        return np.asarray(np.log(curve.loss) - np.log(np.maximum(self.on(view), 1e-9)))

    def to_dict(self) -> dict[str, Any]:
        """As plain data for JSON."""
        return {"law": self.kind, **asdict(self)}

    @staticmethod
    def from_dict(plain: Mapping[str, Any]) -> Law:
        """Read what `to_dict` wrote.

        Raises:
            PlanError: If the law or a parameter is unknown, missing, or not a number.
        """
        values = dict(plain)
        kind = values.pop("law", None)
        if kind not in kinds():
            raise PlanError(
                "unknown law", place="law", value=kind, remedy=nearest(str(kind), _KINDS)
            )
        names = {field.name for field in fields(_KINDS[kind])}
        for name in names ^ set(values):
            what = "missing parameter" if name in names else "unknown parameter"
            raise PlanError(what, place=f"law {kind}: {name}")
        for name, value in values.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise PlanError("not a number", place=f"law {kind}: {name}", value=value)
        return _KINDS[kind](**values)


def kinds() -> Mapping[str, type[Law]]:
    """The laws by name."""
    for name in ("annealing", "concave", "convex", "functional", "multi_power", "steps"):
        importlib.import_module(f"trainplan.laws.{name}")
    return _KINDS


def length_of(schedule: Any, at: Any) -> int:
    """How many steps a schedule has, or are needed to reach ``at``.

    Raises:
        PlanError: If neither says.
    """
    from trainplan.plan import Plan
    from trainplan.schedules.base import Resolved, Schedule

    if isinstance(schedule, Plan) and schedule.horizon:
        return int(schedule.horizon)
    if isinstance(schedule, Resolved):
        return int(schedule.horizon)
    if isinstance(schedule, (Plan, Schedule)):
        if at is None:
            raise PlanError("the schedule has no length", place="steps", remedy="Give steps=...")
        return int(np.max(at)) + 1
    return max(int(np.size(schedule)), int(np.max(at)) + 1 if at is not None else 0)


def power_base(
    area: Floats, floor: float, amplitude: float, exponent: float
) -> tuple[Floats, Floats]:
    """``L0 + A S^-alpha`` and its derivatives by L0, A, alpha, shape (n, 3)."""
    with np.errstate(divide="ignore"):
        power = area**-exponent
        slope = -amplitude * power * np.log(area)
    return floor + amplitude * power, np.stack([np.ones_like(area), power, slope], axis=1)
