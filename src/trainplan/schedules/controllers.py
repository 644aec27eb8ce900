"""Controllers: schedules that listen.

A controller has a value at any time, hears what the run reports (a loss, a reward), and keeps
what it has learned in a state that goes into checkpoints. A schedule is a controller that ignores
what it hears.
"""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from trainplan.errors import PlanError, nearest
from trainplan.schedules.values import count, finite


@runtime_checkable
class Controller(Protocol):
    """What a plan's knob must offer to be driven by what a run reports."""

    def value(self, t: float) -> float:
        """The value to use at time ``t``."""
        ...

    def observe(self, t: float, **signals: float) -> None:
        """Hear signals by name, such as ``loss=2.31``; unknown ones are ignored."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What was learned, as plain numbers, strings, lists and dictionaries."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state_dict` gave."""
        ...

    def plain(self) -> Any:
        """The settings (not the state), as a plan file holds them."""
        ...


@dataclass
class ReduceOnPlateau:
    """Lower the value by a factor when a signal has stopped improving.

    The rule of PyTorch's ``ReduceLROnPlateau``: after more than ``patience`` observations in a
    row that are not better than the best by ``threshold``, the value is multiplied by ``factor``;
    then ``cooldown`` observations are not counted.

    Args:
        initial: The first value.
        signal: The signal's name; an observation without it is not counted.
        mode: Whether a better signal is smaller ("min") or larger ("max").
        factor: In (0, 1).
        patience: Bad observations that are tolerated.
        threshold: By how much an observation must be better to count as such.
        threshold_mode: Whether the threshold is a share of the best value ("rel") or a difference.
        cooldown: Observations after a reduction in which bad ones are not counted.
        lowest: The value is never reduced below this.
        smallest_change: A reduction by no more than this is not made.

    >>> lr = ReduceOnPlateau(0.1, factor=0.5, patience=0)
    >>> for loss in (1.0, 1.0):
    ...     lr.observe(0, loss=loss)
    >>> lr.value(2)
    0.05
    """

    initial: float
    signal: str = "loss"
    mode: Literal["min", "max"] = "min"
    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    threshold_mode: Literal["rel", "abs"] = "rel"
    cooldown: int = 0
    lowest: float = 0.0
    smallest_change: float = 1e-8
    _state: dict[str, float] = field(default_factory=dict, init=False, repr=False, compare=False)

    name: ClassVar[str] = "reduce_on_plateau"

    def __post_init__(self) -> None:
        for name in ("initial", "factor", "threshold", "lowest", "smallest_change"):
            setattr(self, name, finite(getattr(self, name), name))
        for name in ("patience", "cooldown"):
            setattr(self, name, count(getattr(self, name), name, least=0))
        if not isinstance(self.signal, str):
            raise PlanError("the name of a signal is text", place="signal", value=self.signal)
        if not 0 < self.factor < 1:
            raise PlanError(
                "the factor must lie between 0 and 1", place="factor", value=self.factor
            )
        for name, known in {"mode": ("min", "max"), "threshold_mode": ("rel", "abs")}.items():
            if getattr(self, name) not in known:
                value = getattr(self, name)
                raise PlanError(
                    "unknown", place=name, value=value, remedy=nearest(str(value), known)
                )
        worst = math.inf if self.mode == "min" else -math.inf
        self._state = {"value": self.initial, "best": worst, "bad": 0, "cooling": 0}

    def value(self, t: float) -> float:
        """The value now; it does not depend on ``t``."""
        return self._state["value"]

    def observe(self, t: float, **signals: float) -> None:
        """Count one observation, and reduce the value if it was one bad one too many."""
        if self.signal not in signals:
            return
        now, state = float(signals[self.signal]), self._state
        if self._better(now, state["best"]):
            state["best"], state["bad"] = now, 0
        else:
            state["bad"] += 1
        if state["cooling"] > 0:
            state["cooling"] -= 1
            state["bad"] = 0
        if state["bad"] > self.patience:
            reduced = max(state["value"] * self.factor, self.lowest)
            if state["value"] - reduced > self.smallest_change:
                state["value"] = reduced
            state["cooling"], state["bad"] = self.cooldown, 0

    def _better(self, now: float, best: float) -> bool:
        sign = 1.0 if self.mode == "min" else -1.0
        if self.threshold_mode == "abs" or math.isinf(best):
            return sign * now < sign * best - (self.threshold if not math.isinf(best) else 0.0)
        return sign * now < sign * best * (1 - sign * self.threshold)

    def state_dict(self) -> dict[str, Any]:
        """Value, best signal, and the two counters; an unset best is the text "none"."""
        best = self._state["best"]
        return self._state | {"best": best if math.isfinite(best) else "none"}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`.

        Raises:
            PlanError: If the state is not one of this controller.
        """
        if not isinstance(state, dict) or set(state) != set(self._state):
            raise PlanError("not a state of ReduceOnPlateau", place="state", value=state)
        worst = math.inf if self.mode == "min" else -math.inf
        unset = state["best"] == "none"
        self._state = {
            "value": finite(state["value"], "state.value"),
            "best": worst if unset else finite(state["best"], "state.best"),
            "bad": count(state["bad"], "state.bad", least=0),
            "cooling": count(state["cooling"], "state.cooling", least=0),
        }

    def plain(self) -> Any:
        """The settings that differ from the defaults."""
        given = {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.init and getattr(self, f.name) != f.default
        }
        return {self.name: given}


CONTROLLERS: dict[str, Any] = {ReduceOnPlateau.name: ReduceOnPlateau}
"""Controllers by the names that plan files use."""


def register_controller(name: str, cls: Any) -> None:
    """Make a controller readable from plan files under ``name``."""
    CONTROLLERS[name] = cls


def build(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Controller:
    """A controller from its name and settings."""
    cls = CONTROLLERS[name]
    known = list(inspect.signature(cls).parameters)
    for key, value in kwargs.items():
        if key not in known:
            raise PlanError(
                f"{name} has no setting of this name",
                place=str(key),
                value=value,
                remedy=nearest(str(key), known),
            )
    controller: Controller = cls(*args, **kwargs)
    return controller
