"""The shares of the data sets of a mixture over time, from whatever drives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainplan.data.batches import Indices
from trainplan.data.feedback import Feedback
from trainplan.data.mixture import Stage, mixture_at
from trainplan.data.quotas import Floats
from trainplan.errors import PlanError, nearest
from trainplan.schedules.base import Schedule
from trainplan.schedules.phases import Constant
from trainplan.schedules.values import digest_of, finite

Weights = Mapping[str, Schedule | float] | Sequence[Stage] | Feedback
"""Schedules or numbers by name, a list of stages, or what is decided while training."""


class Shares:
    """Share of each data set at each step.

    Args:
        names: The data sets.
        weights: Weight of each, in any unit.
        horizon: Length of the run in the schedules' unit, if it is known.
        units_per_step: The schedules' units per step.

    >>> Shares(("a", "b"), {"a": 3, "b": 1})(np.array([0])).tolist()
    [[0.75, 0.25]]
    """

    def __init__(
        self,
        names: tuple[str, ...],
        weights: Weights,
        horizon: float | None = None,
        units_per_step: float = 1.0,
    ) -> None:
        self.names = names
        self.horizon = horizon
        self.units_per_step = units_per_step
        self.weights = self._read(weights)

    @property
    def lag(self) -> int | None:
        """How late observations count; None if there are none."""
        return self.weights.lag if isinstance(self.weights, Feedback) else None

    def _read(self, weights: Any) -> dict[str, Schedule] | tuple[Stage, ...] | Feedback:
        if isinstance(weights, Feedback):
            if weights.keys is None:
                weights.keys = self.names
            return weights
        if isinstance(weights, Mapping):
            given = by_name(self.names, weights, "weights", 0.0)
            return {
                name: resolved(value, f"weights.{name}", self.horizon)
                for name, value in given.items()
            }
        stages = tuple(weights)
        for i, stage in enumerate(stages):
            by_name(self.names, stage.weights, f"weights[{i}]", 0.0)
        return stages

    def __call__(self, steps: Indices) -> Floats:
        """(t, k) share of each data set at steps (t,), as planned.

        Raises:
            PlanError: If a weight is below zero or no number, or all are zero.
        """
        if isinstance(self.weights, Feedback):
            rows = [self._decided(int(step)) for step in steps]
            weights = np.asarray(rows, dtype=np.float64)
        elif isinstance(self.weights, tuple):
            stages = [mixture_at(self.weights, t * self.units_per_step) for t in steps.tolist()]
            weights = np.array([[stage.get(n, 0.0) for n in self.names] for stage in stages])
        else:
            times = steps * self.units_per_step
            weights = np.stack(
                [np.asarray(self.weights[name](times)) for name in self.names], axis=1
            )
        bad = np.argwhere(~(np.isfinite(weights) & (weights >= 0)))
        if bad.size:
            t, k = bad[0]
            raise PlanError(
                f"must be a number not below zero at step {steps[t]}",
                place=f"weights.{self.names[k]}",
                value=float(weights[t, k]),
            )
        sums = weights.sum(axis=1, keepdims=True)
        if not sums.all():
            t = int(np.flatnonzero(sums == 0)[0])
            raise PlanError(f"all are zero at step {steps[t]}", place="weights", value=0.0)
        shares: Floats = weights / sums
        return shares

    def _decided(self, step: int) -> list[float]:
        assert isinstance(self.weights, Feedback)  # noqa: S101 - only then asked
        value = self.weights.decide(step)
        if isinstance(value, Mapping):
            value = [value.get(name, 0.0) for name in self.names]
        weights = np.asarray(value, dtype=np.float64).tolist()
        if not isinstance(weights, list) or len(weights) != len(self.names):
            raise PlanError(
                f"{len(self.names)} data sets need as many weights", place="weights", value=weights
            )
        return weights

    def told(self) -> Any:
        """What drives the shares, as plain data."""
        weights = self.weights
        if isinstance(weights, Feedback):
            plain = getattr(weights.decider, "plain", None)
            return [plain() if plain else type(weights.decider).__name__, weights.lag]
        if isinstance(weights, tuple):
            return digest_of([[stage.length, dict(stage.weights)] for stage in weights])
        return digest_of([[name, schedule.digest] for name, schedule in weights.items()])


def by_name(names: tuple[str, ...], given: Any, place: str, default: Any) -> dict[str, Any]:
    """One value for each data set, from a mapping or from one value for all."""
    if not isinstance(given, Mapping):
        return dict.fromkeys(names, default if given is None else given)
    for name in given:
        if name not in names:
            raise PlanError(
                "no such data set",
                place=f"{place}.{name}",
                value=given[name],
                remedy=nearest(str(name), names),
            )
    return {name: given.get(name, default) for name in names}


def resolved(value: Any, place: str, horizon: float | None) -> Schedule:
    """A schedule whose durations are measured, from one or from a number."""
    if not isinstance(value, Schedule):
        return Constant(finite(value, place))
    if not value.needs_horizon:
        return value
    if horizon is None:
        raise PlanError(
            "a share of the run needs its length",
            place=place,
            value=value,
            remedy="Give steps=..., or the schedule's resolve(steps)",
        )
    return value.resolve(int(horizon) if float(horizon).is_integer() else horizon)
