"""Plain PyTorch: apply a plan to an optimizer.

    run = tp.torch.attach(plan, optimizer)

From then on every ``optimizer.step()`` uses the plan's values: they are set before the update and
the clock advances after it, so gradient accumulation and skipped mixed-precision steps are counted
right. ``run.state_dict()`` holds the clock and what controllers have learned, nothing else.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

from trainplan._extras import require
from trainplan.errors import PlanError, located, nearest
from trainplan.knobs import Knob, Value
from trainplan.plan import Plan
from trainplan.schedules.base import Schedule
from trainplan.schedules.values import count

torch = require("torch", extra="torch")
_Scheduler = torch.optim.lr_scheduler.LRScheduler

_ATTACHED: weakref.WeakKeyDictionary[Any, set[str]] = weakref.WeakKeyDictionary()
_TUPLES = ("betas", "etas", "step_sizes")


class Clock:
    """Counts what a run has completed, in every unit.

    Attributes:
        steps: Optimizer steps that changed parameters.
        tokens: Tokens seen.
        samples: Samples seen.
    """

    __slots__ = ("samples", "steps", "tokens")

    def __init__(self) -> None:
        self.steps = 0
        self.tokens = 0
        self.samples = 0

    def state_dict(self) -> dict[str, int]:
        """The counts."""
        return {"steps": self.steps, "tokens": self.tokens, "samples": self.samples}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Set the counts."""
        if not isinstance(state, dict) or set(state) != set(self.state_dict()):
            raise PlanError("not the counts of a clock", value=state)
        self.steps, self.tokens, self.samples = (
            count(state[name], name, least=0) for name in ("steps", "tokens", "samples")
        )


class Run:
    """A plan at work on an optimizer; made by `attach`.

    Attributes:
        plan: The plan.
        optimizer: The optimizer.
        clock: What has been completed.
        values: The values of all knobs used by the last update, or to be used by the first.
    """

    def __init__(self, plan: Plan, optimizer: Any, names: Iterable[str]) -> None:
        self.plan = plan
        self.optimizer = optimizer
        self.clock = Clock()
        self._coming = (0, 0)  # tokens and samples of the update that is being made
        self.values: dict[str, Value] = {}
        self._names = tuple(names)
        self._in_steps = plan.unit == "steps"
        self._scales: list[dict[str, float]] = []
        self._largest = {name: _largest(name, optimizer.param_groups) for name in self._names}
        self._knobs: list[tuple[str, Callable[[float], Value], list[float]]] = [
            (name, _reader(plan.ready[name]), []) for name in plan
        ]
        self._capture_scales()
        self._handles = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
            optimizer.register_load_state_dict_post_hook(self._after_load),
        ]
        _ATTACHED.setdefault(optimizer, set()).update(self._names)
        self.apply()

    @property
    def t(self) -> float:
        """Completed units of the plan, as the plan counts them."""
        unit, clock, rates = self.plan.unit, self.clock, self.plan.rates
        if unit == "steps":
            return clock.steps
        if unit == "epochs":
            return clock.steps / rates["steps_per_epoch"]
        per_step = rates.get(f"{unit}_per_step")
        counted: int = getattr(clock, unit)
        return clock.steps * per_step if per_step is not None else counted

    def count(self, *, tokens: int = 0, samples: int = 0) -> None:
        """Count data that the coming update is made of; call it once for each micro-batch.

        Needed for a plan in tokens or samples without a fixed number of them per step. The clock
        takes them over when the update is done: the first one uses the values at 0.
        """
        self._coming = (self._coming[0] + tokens, self._coming[1] + samples)

    def observe(self, **signals: float) -> None:
        """Tell the plan's controllers what the run reports, such as ``loss=2.3``."""
        for controller in self.plan.controllers.values():
            controller.observe(self.t, **signals)
        self.apply()

    def apply(self) -> None:
        """Set every optimizer knob to its value at the current time."""
        t = self.clock.steps if self._in_steps else self.t
        groups = self.optimizer.param_groups
        if len(groups) > len(self._scales):
            self._capture_scales()
        values = self.values
        for name, read, scales in self._knobs:
            value = values[name] = read(t)
            for group, scale in zip(groups, scales, strict=False):
                old = group[name]
                if old.__class__ is float:
                    group[name] = value * scale  # type: ignore[operator]
                else:
                    _write(group, name, old, value, scale)

    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self.apply()

    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        # A fused optimizer is also called for a step that overflowed, and skips it by itself.
        found = getattr(optimizer, "found_inf", None)
        if found is None or not found.item():
            self.clock.steps += 1
            if self._coming != (0, 0):
                self.clock.tokens += self._coming[0]
                self.clock.samples += self._coming[1]
                self._coming = (0, 0)

    def _after_load(self, optimizer: Any) -> None:
        """Loading replaces every group with the saved one, stale values and all."""
        for group, scales in zip(optimizer.param_groups, self._scales, strict=False):
            for name, scale in scales.items():
                if name not in _TUPLES:
                    group[f"{name}_scale"] = scale
        _unshare_tensors(optimizer.param_groups, self._names)
        self.apply()

    def _capture_scales(self) -> None:
        """How far each group's own value is from the optimizer's default, taken before any change.

        The scale is kept in the group (``lr_scale``), so that it survives a checkpoint; one that
        the user has put there wins.
        """
        new = self.optimizer.param_groups[len(self._scales) :]
        _unshare_tensors(new, self._names)
        for group in new:
            scales: dict[str, float] = {}
            for name in self._names:
                if name in _TUPLES:
                    scales[name] = 1.0
                    continue
                key = f"{name}_scale"
                if key not in group:
                    group[key] = self._scale(name, group)
                scales[name] = float(group[key])
            self._scales.append(scales)
        for name, _, column in self._knobs:
            # A knob that the optimizer lacks has no scales, and so is written to no group.
            column[:] = [scales[name] for scales in self._scales if name in scales]

    def _scale(self, name: str, group: dict[str, Any]) -> float:
        base = _base(name, group)
        reference = float(self.optimizer.defaults.get(name) or 0.0)
        if reference:
            return base / reference
        # No default to compare with: a zero group among others is one that opted out.
        return base / self._largest[name] if self._largest[name] else 1.0

    def detach(self) -> None:
        """Stop applying the plan; the groups keep their last values."""
        for handle in self._handles:
            handle.remove()
        _ATTACHED.get(self.optimizer, set()).difference_update(self._names)

    def state_dict(self) -> dict[str, Any]:
        """The clock and the controllers' states, as plain numbers and text."""
        states = {name: knob.state_dict() for name, knob in self.plan.controllers.items()}
        return {"clock": self.clock.state_dict(), "controllers": states}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state, before or after the optimizer's own state is loaded.

        Raises:
            PlanError: If the state belongs to other controllers than the plan has.
        """
        controllers = self.plan.controllers
        if not isinstance(state, dict) or not {"clock", "controllers"} <= set(state):
            raise PlanError("not the state of a run", place="state", value=state)
        if set(state["controllers"]) != set(controllers):
            raise PlanError(
                "the saved controllers are not those of the plan",
                place="state.controllers",
                value=sorted(state["controllers"]),
                remedy="Load it with the plan that it was saved with",
            )
        located("state.clock", self.clock.load_state_dict, state["clock"])
        self._coming = (0, 0)
        for name, controller in controllers.items():
            controller.load_state_dict(state["controllers"][name])
        self.apply()


def attach(plan: Plan, optimizer: Any, *, others: str = "ignore") -> Run:
    """Let a plan drive an optimizer.

    Every knob that is a hyperparameter of the optimizer (``lr``, ``weight_decay``, ``betas``,
    ``momentum``, ...) is applied to all parameter groups. A group whose own value differs from
    the optimizer's default keeps that ratio, also through checkpoints; a group with
    ``weight_decay=0`` among others keeps 0. To say the ratio outright, put ``lr_scale`` or
    ``weight_decay_scale`` into the group. ``betas`` are set for all groups alike.

    A plan with controllers belongs to one run: what they have learned is in them. For another run
    read the plan again, as with ``Plan.from_dict(plan.to_dict())``.

    Attach before ``torch.compile`` of the step, and use a tensor as learning rate under it. A
    copy or a pickled optimizer loses its hooks: attach again.

    Args:
        plan: The plan.
        optimizer: A ``torch.optim.Optimizer``, fused, foreach and capturable ones included.
        others: What to do with knobs that the optimizer does not have: ``"ignore"`` (they are for
            the data or the loss: read ``run.values``) or ``"error"``.

    Raises:
        PlanError: If no knob is one of the optimizer, or another plan already drives one.

    >>> import torch, trainplan as tp
    >>> weight = torch.nn.Parameter(torch.ones(()))
    >>> optimizer = torch.optim.SGD([weight])
    >>> run = attach(tp.Plan(horizon=10, lr=tp.schedules.linear(0.5)), optimizer)
    >>> for _ in range(2):
    ...     weight.grad = torch.ones(())
    ...     optimizer.step()
    >>> run.t, run.values, round(weight.item(), 6)
    (2, {'lr': 0.45}, 0.05)
    """
    return Run(plan, optimizer, claim(plan, optimizer, others=others))


def claim(plan: Plan, optimizer: Any, *, others: str = "ignore", least: int = 1) -> list[str]:
    """The knobs of a plan that are hyperparameters of an optimizer, if it can drive them.

    Args:
        plan: The plan.
        optimizer: The optimizer.
        others: Whether knobs that the optimizer does not have are an "error".
        least: How many it must have.

    Raises:
        PlanError: If it has too few, another plan drives one, or a value has the wrong form.
    """
    known = (set(optimizer.defaults) | set(optimizer.param_groups[0])) - {"params"}
    names = [name for name in plan if name in known]
    missing = [name for name in plan if name not in names]
    if len(names) < least or (missing and others == "error"):
        raise PlanError(
            f"{type(optimizer).__name__} has no hyperparameter {missing[0]!r}",
            place=missing[0],
            remedy=nearest(missing[0], known),
        )
    taken = _ATTACHED.get(optimizer, set()) & set(names)
    if taken:
        raise PlanError(
            "a plan already drives this knob of the optimizer",
            place=min(taken),
            remedy="Call detach() on the first run",
        )
    _check_shapes(plan, names, optimizer)
    _check_unit(plan)
    return names


def as_lr_scheduler(plan: Plan, optimizer: Any) -> Any:
    """The plan's learning rate as a genuine ``LRScheduler``, for code that wants one.

    It must be stepped once per optimizer step. Its ``state_dict()`` holds the step count only,
    and after a load it sets the rates of the plan that it was built with, so that an extended
    plan takes effect at once. Knobs other than ``lr`` are not driven.

    >>> import torch, trainplan as tp
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(()))])
    >>> scheduler = as_lr_scheduler(tp.Plan(horizon=10, lr=tp.schedules.linear(0.5)), optimizer)
    >>> scheduler.get_last_lr()
    [0.5]
    """
    if plan.unit != "steps":
        raise PlanError(
            "a scheduler counts steps", place="unit", value=plan.unit, remedy="Use attach"
        )
    schedule = plan.ready.get("lr")
    if not isinstance(schedule, Schedule):
        raise PlanError("the plan has no schedule lr", place="lr", value=schedule)
    return PlanScheduler(optimizer, schedule)


class PlanScheduler(_Scheduler):  # type: ignore[misc, valid-type]
    """A schedule of rates as PyTorch's own kind of scheduler; made by `as_lr_scheduler`."""

    def __init__(self, optimizer: Any, schedule: Schedule) -> None:
        self._schedule = schedule
        reference = float(optimizer.defaults["lr"])
        self._scale_of = [_group_scale(group, reference) for group in optimizer.param_groups]
        _unshare_tensors(optimizer.param_groups, ["lr"])
        super().__init__(optimizer)
        optimizer.register_load_state_dict_post_hook(lambda _: self._apply())

    def get_lr(self) -> list[float]:
        """The rate of each group at the current step."""
        value = self._schedule(self.last_epoch)
        return [value * scale for scale in self._scale_of]

    def state_dict(self) -> dict[str, Any]:
        """The step count."""
        return {"last_epoch": self.last_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Set the step count, and the rates that the plan has there."""
        self.last_epoch = count(state_dict["last_epoch"], "last_epoch", least=0)
        self._step_count = self.last_epoch + 1
        self._apply()

    def _apply(self) -> None:
        """Set the rates; also after the optimizer was loaded, which brings back saved ones."""
        self._last_lr = self.get_lr()
        for group, lr in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr


def _group_scale(group: dict[str, Any], reference: float) -> float:
    if "lr_scale" not in group:
        group["lr_scale"] = _base("lr", group) / reference if reference else 1.0
    return float(group["lr_scale"])


def _base(name: str, group: dict[str, Any]) -> float:
    """A group's own value, from before anything was scheduled."""
    return float(group.get(f"initial_{name}", group[name]))


def _largest(name: str, groups: list[dict[str, Any]]) -> float:
    """The largest of the groups' own values; 0 for what is not one number."""
    return 0.0 if name in _TUPLES else max(_base(name, group) for group in groups)


def _unshare_tensors(groups: list[dict[str, Any]], names: Iterable[str]) -> None:
    """One tensor given as ``lr=`` is shared by all groups: writing one would write all."""
    for group in groups:
        for name in names:
            if isinstance(group[name], torch.Tensor):
                group[name] = group[name].clone()


def _reader(knob: Knob) -> Callable[[float], Value]:
    """The fastest way to a knob's value."""
    if isinstance(knob, tuple):
        curves = [item.curve.at for item in knob]
        return lambda t: tuple(at(t) for at in curves)
    if isinstance(knob, Schedule):
        return knob.curve.at
    return knob.value


def _write(group: dict[str, Any], name: str, old: Any, value: Any, scale: float) -> None:
    """Set a hyperparameter that is not a float: a tensor, an integer, or several of them."""
    if isinstance(old, torch.Tensor):
        old.fill_(value * scale)
    elif not isinstance(value, tuple):
        group[name] = value * scale
    elif old and isinstance(old[0], torch.Tensor):
        for tensor, number in zip(old, value, strict=True):
            tensor.fill_(number)
    elif old != value:
        group[name] = value


def _check_shapes(plan: Plan, names: list[str], optimizer: Any) -> None:
    for name in names:
        is_tuple = isinstance(plan.knobs[name], tuple)
        wants = optimizer.param_groups[0][name]
        size = len(wants) if isinstance(wants, (tuple, list)) else 0
        if is_tuple != bool(size) or (is_tuple and len(plan.knobs[name]) != size):  # type: ignore[arg-type]
            what = f"{size} numbers" if size else "one number"
            raise PlanError(f"the optimizer takes {what} here", place=name, value=plan.knobs[name])


def _check_unit(plan: Plan) -> None:
    if plan.unit == "epochs" and "steps_per_epoch" not in plan.rates:
        raise PlanError(
            "a plan in epochs needs to know how many steps one is",
            place="steps_per_epoch",
            remedy="Give the plan steps_per_epoch=len(loader) (divided by accumulation)",
        )
