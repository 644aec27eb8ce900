"""A comparison as data: which arms, on which workload, for how long, with which seeds.

Everything that the outcome depends on is in an :class:`Experiment`, and nothing else. It is written
to the run directory before anything is trained, and resuming reads it from there.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from trainplan.errors import PlanError
from trainplan.lab.segments import Curves, Graph, plan_segments
from trainplan.lab.workload import WorkloadSpec
from trainplan.plan import Plan
from trainplan.schedules.base import Schedule

MOST_STEPS = 10_000_000
TUNING_SEEDS_FROM = 1_000_000
"""Tuning uses seeds from here on: no arm is judged on a seed that its peak was chosen on."""


@dataclass(frozen=True)
class Arm:
    """One plan under comparison.

    Attributes:
        name: Unique within the experiment.
        plan: What changes while it trains; its horizon is the arm's budget in steps.
    """

    name: str
    plan: Plan


@dataclass(frozen=True)
class Tuning:
    """How each arm's peak is chosen before the comparison.

    Attributes:
        factors: Each arm tries its learning rate times each of these.
        seeds: Number of seeds per try, none of which the comparison uses.
    """

    factors: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)
    seeds: int = 2

    def seed_numbers(self) -> tuple[int, ...]:
        """The seeds that tuning runs on."""
        return tuple(range(TUNING_SEEDS_FROM, TUNING_SEEDS_FROM + self.seeds))


@dataclass(frozen=True)
class Experiment:
    """What is compared. The first arm is the one that the others are compared with.

    Attributes:
        arms: At least one.
        seeds: Every arm runs on every seed.
        workload: What is trained.
        eval_every: Evaluate after every so many steps, and at the end.
        record_grad_norms: Record the length of the gradient at every step.
        share_prefixes: Train what arms have in common once.
        tuning: How peaks are chosen, or ``None`` to use the plans as they are.
    """

    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    workload: WorkloadSpec = field(default_factory=WorkloadSpec)
    eval_every: int = 50
    record_grad_norms: bool = False
    share_prefixes: bool = True
    tuning: Tuning | None = None

    def __post_init__(self) -> None:
        _check_names([arm.name for arm in self.arms])
        _check_seeds(self.seeds, self.tuning)
        if self.eval_every < 1:
            raise PlanError("must be at least 1", place="eval_every", value=self.eval_every)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        tuning = self.tuning
        return {
            "arms": [{"name": arm.name, "plan": arm.plan.to_dict()} for arm in self.arms],
            "seeds": list(self.seeds),
            "workload": self.workload.to_dict(),
            "eval_every": self.eval_every,
            "record_grad_norms": self.record_grad_norms,
            "share_prefixes": self.share_prefixes,
            "tuning": tuning and {"factors": list(tuning.factors), "seeds": tuning.seeds},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Experiment:
        """The inverse of :meth:`to_dict`."""
        tuning = data["tuning"]
        return cls(
            arms=tuple(Arm(a["name"], Plan.from_dict(a["plan"])) for a in data["arms"]),
            seeds=tuple(data["seeds"]),
            workload=WorkloadSpec.from_dict(data["workload"]),
            eval_every=data["eval_every"],
            record_grad_norms=data["record_grad_norms"],
            share_prefixes=data["share_prefixes"],
            tuning=tuning and Tuning(tuple(tuning["factors"]), tuning["seeds"]),
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the experiment as data."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    def graph(self, workload_digest: str) -> Graph:
        """The segments of this experiment (without its tuning)."""
        recorded = json.dumps([workload_digest, self.eval_every, self.record_grad_norms])
        curves = {arm.name: plan_curves(arm.plan) for arm in self.arms}
        return plan_segments(curves, self.seeds, context=recorded, share=self.share_prefixes)

    def tuning_experiment(self) -> Experiment:
        """The runs that choose the peaks: every arm at every factor, on the tuning's seeds."""
        tuning = self.tuning or Tuning()
        arms = tuple(
            Arm(tuning_name(arm.name, factor), scale_lr(arm.plan, factor))
            for arm in self.arms
            for factor in tuning.factors
        )
        return replace(self, arms=arms, seeds=tuning.seed_numbers(), tuning=None)

    def with_peaks(self, factors: Mapping[str, float]) -> Experiment:
        """The same experiment with each arm's learning rate multiplied by its factor."""
        arms = tuple(Arm(a.name, scale_lr(a.plan, factors[a.name])) for a in self.arms)
        return replace(self, arms=arms, tuning=None)


def plan_curves(plan: Plan) -> Curves:
    """All knob values of a plan at every step. See :class:`trainplan.lab.segments.Curves`.

    Raises:
        PlanError: If the length of the plan in steps is not known.
    """
    steps = plan_steps(plan)
    if plan.controllers:
        return Curves((), np.zeros((steps, 0)), private=plan.digest)
    # Point by point, as an attached plan reads them: an array may round its last bit differently.
    rows = [plan.at(t) for t in plan_times(plan, steps)]
    names, columns = [], []
    for name in sorted(plan.knobs):
        values = np.array([row[name] for row in rows], dtype=np.float64).reshape(steps, -1)
        names += [f"{name}[{index}]" for index in range(values.shape[1])]
        columns.append(values)
    return Curves(tuple(names), np.concatenate(columns, axis=1))


def plan_steps(plan: Plan) -> int:
    """How many steps a plan lasts.

    Raises:
        PlanError: If it has no horizon, or is in another unit without saying how much a step is.

    Example:
        >>> plan_steps(Plan(horizon=1000, unit="tokens", tokens_per_step=300, lr=0.1))
        4
    """
    if plan.horizon is None:
        remedy = "Write `horizon: ...` into the plan, or give --steps"
        raise PlanError("how long is it?", place="horizon", value=None, remedy=remedy)
    steps = math.ceil(plan.horizon / _per_step(plan))
    if steps > MOST_STEPS:
        remedy = f"The lab trains at most {MOST_STEPS:,} steps per arm"
        raise PlanError("too many steps", place="horizon", value=steps, remedy=remedy)
    return steps


def plan_times(plan: Plan, steps: int) -> list[float]:
    """The plan's time at each of the first ``steps`` steps, as an attached plan counts it."""
    if plan.unit == "steps":
        return list(range(steps))
    if plan.unit == "epochs":
        return [step / plan.rates["steps_per_epoch"] for step in range(steps)]
    return [step * plan.rates[f"{plan.unit}_per_step"] for step in range(steps)]


def last_for(plan: Plan, steps: int) -> Plan:
    """The same plan for a budget of ``steps``."""
    if plan.unit == "steps":
        return plan.replace(horizon=steps)
    return plan.replace(horizon=steps * _per_step(plan))


def _per_step(plan: Plan) -> float:
    """How many of the plan's units one step is."""
    if plan.unit == "steps":
        return 1
    rate = "steps_per_epoch" if plan.unit == "epochs" else f"{plan.unit}_per_step"
    if rate not in plan.rates:
        remedy = f"Write `{rate}: ...` into the plan"
        raise PlanError(f"how many {plan.unit} is a step?", place=rate, value=None, remedy=remedy)
    return 1 / plan.rates[rate] if plan.unit == "epochs" else plan.rates[rate]


def scale_lr(plan: Plan, factor: float) -> Plan:
    """The plan with its learning rate multiplied.

    Raises:
        PlanError: If its learning rate is not a schedule.
    """
    lr = plan.knobs.get("lr")
    if not isinstance(lr, Schedule):
        remedy = "Give the plan a scheduled lr, or leave out --tune-peak"
        raise PlanError(f"{plan.name}: no peak to tune", place="lr", value=lr, remedy=remedy)
    return plan if factor == 1 else plan.replace(lr=lr * factor)


def tuning_name(arm: str, factor: float) -> str:
    """Name of an arm's try at one factor."""
    return f"{arm} x{factor:g}"


def _check_names(names: Sequence[str]) -> None:
    if not names:
        raise PlanError("there is nothing to compare", place="arms", value=[])
    for name in names:
        if names.count(name) > 1:
            remedy = "Give each plan a name of its own (`name:` in its file)"
            raise PlanError("two arms have one name", place="arms", value=name, remedy=remedy)


def _check_seeds(seeds: Sequence[int], tuning: Tuning | None) -> None:
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        remedy = "Give at least one seed, each once, none negative"
        raise PlanError("these seeds cannot be used", place="seeds", value=seeds, remedy=remedy)
    taken = set(seeds) & set(tuning.seed_numbers()) if tuning else set()
    if taken:
        remedy = f"Seeds from {TUNING_SEEDS_FROM} on are used for tuning"
        raise PlanError("the peak is chosen on it", place="seeds", value=min(taken), remedy=remedy)
