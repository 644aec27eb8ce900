"""From what a person asks for on the command line to an experiment, and back when resuming."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainplan.errors import PlanError
from trainplan.lab.arms import default_arms
from trainplan.lab.comparison import as_arms, default_eval_every
from trainplan.lab.experiment import Arm, Experiment, Tuning, plan_steps
from trainplan.lab.store import RunDirectoryError
from trainplan.lab.workload import Workload, WorkloadSpec
from trainplan.lint import check
from trainplan.plan import Plan

DEFAULT_STEPS = 800
DEFAULT_SEEDS = 5


@dataclass(frozen=True)
class Request:
    """What was asked for; ``None`` where nothing was said. See ``trainplan compare --help``."""

    plans: tuple[Path, ...] = ()
    workload: str | None = None
    options: tuple[str, ...] = ()
    steps: int | None = None
    own_horizons: bool = False
    seeds: int | None = None
    peak: float | None = None
    tune_peak: bool = False
    peak_factors: str | None = None
    eval_every: int | None = None
    record_grad_norms: bool = False
    no_sharing: bool = False
    predict: bool = False
    predict_from: int | None = None

    def experiment(self) -> Experiment:
        """The experiment that is asked for.

        Raises:
            PlanError: If it cannot be meant.
        """
        spec = WorkloadSpec(self.workload or "text", parse_options(self.options))
        arms = self._arms(spec)
        return Experiment(
            arms=arms,
            seeds=tuple(range(self.seeds or DEFAULT_SEEDS)),
            workload=spec,
            eval_every=self.eval_every or default_eval_every(arms, predict=self.predicts),
            record_grad_norms=self.record_grad_norms,
            share_prefixes=not self.no_sharing,
            tuning=self._tuning(),
        )

    @property
    def predicts(self) -> bool:
        """Whether later arms are to be predicted from the first ones."""
        return self.predict or self.predict_from is not None

    def check_agrees_with(self, begun: Experiment, root: Path) -> None:
        """Refuse to resume an experiment under options that ask for another one.

        Raises:
            RunDirectoryError: Naming the options that differ.
        """
        asked = self._changed(begun).to_dict()
        stored = begun.to_dict()
        differing = [name for name in stored if _canonical(asked[name]) != _canonical(stored[name])]
        if differing:
            raise RunDirectoryError(
                f"{root} was begun with other {', '.join(differing)}: leave those options out to "
                "continue it, or start anew without --resume"
            )

    def _changed(self, begun: Experiment) -> Experiment:
        """The experiment that was begun, with everything that was said now put into it."""
        arms = begun.arms if self.steps is None else as_arms(begun.arms, self.steps)
        if self.plans:
            arms = self._given_arms()
        elif self.peak is not None:
            steps = self.steps or plan_steps(begun.arms[0].plan)
            arms = default_arms(peak=self.peak, steps=steps)
        spec = WorkloadSpec(
            self.workload or begun.workload.path,
            parse_options(self.options) if self.options else begun.workload.options,
        )
        return replace(
            begun,
            arms=arms,
            workload=spec,
            seeds=tuple(range(self.seeds)) if self.seeds else begun.seeds,
            eval_every=self.eval_every or begun.eval_every,
            record_grad_norms=self.record_grad_norms or begun.record_grad_norms,
            share_prefixes=begun.share_prefixes and not self.no_sharing,
            tuning=self._tuning() or begun.tuning,
        )

    def _arms(self, spec: WorkloadSpec) -> tuple[Arm, ...]:
        if not self.plans:
            peak = self.peak or _default_peak(spec.load(), spec.path)
            return default_arms(peak=peak, steps=self.steps or DEFAULT_STEPS)
        if self.peak is not None:
            remedy = "Write the peak into the plans, or leave them out"
            raise PlanError("is for the default arms", place="--peak", remedy=remedy)
        return self._given_arms()

    def _given_arms(self) -> tuple[Arm, ...]:
        plans = [Plan.load(path) for path in self.plans]
        for path, plan in zip(self.plans, plans, strict=True):
            _refuse_errors(
                plan if self.steps is None else as_arms([plan], self.steps)[0].plan, path
            )
        if self.steps is None and not self.own_horizons:
            _check_same_horizon(plans, self.plans)
        return as_arms(plans, self.steps)

    def _tuning(self) -> Tuning | None:
        if not self.tune_peak:
            return None
        return Tuning(parse_factors(self.peak_factors)) if self.peak_factors else Tuning()


def parse_options(options: Sequence[str]) -> dict[str, Any]:
    """Read ``name=value`` pairs; values are JSON where they can be, else text.

    Example:
        >>> parse_options(["width=128", "optimizer=sgd"])
        {'width': 128, 'optimizer': 'sgd'}
    """
    parsed: dict[str, Any] = {}
    for text in options:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            remedy = "Write it like width=128"
            raise PlanError(
                "not an option of a workload", place="--with", value=text, remedy=remedy
            )
        try:
            parsed[name] = json.loads(value)
        except ValueError:
            parsed[name] = value
    return parsed


def parse_factors(text: str) -> tuple[float, ...]:
    """Read a grid of factors above zero, in ascending order.

    Example:
        >>> parse_factors("2,0.5,1")
        (0.5, 1.0, 2.0)
    """
    try:
        factors = tuple(sorted({float(part) for part in text.split(",")}))
    except ValueError:
        factors = ()
    if not factors or not all(0 < factor < float("inf") for factor in factors):
        remedy = "Write numbers above zero with commas between them"
        raise PlanError("not a grid", place="--peak-factors", value=text, remedy=remedy)
    return factors


def _default_peak(workload: Workload, path: str) -> float:
    peak = getattr(workload, "default_peak", None)
    if peak is None:
        remedy = "Give --peak, or plan files"
        raise PlanError("it names no default_peak", place=f"workload {path!r}", remedy=remedy)
    return float(peak)


def _refuse_errors(plan: Plan, path: Path) -> None:
    for finding in check(plan):
        if finding.level == "error":
            place = f"{path}: {finding.place}"
            raise PlanError(finding.message, place=place, remedy=finding.remedy)


def _check_same_horizon(plans: Sequence[Plan], paths: Sequence[Path]) -> None:
    steps = {str(path): plan_steps(plan) for path, plan in zip(paths, plans, strict=True)}
    if len(set(steps.values())) > 1:
        listed = ", ".join(f"{path}: {count}" for path, count in steps.items())
        remedy = "Give all one budget with --steps, or keep them with --own-horizons"
        raise PlanError(f"the plans last differently long ({listed})", remedy=remedy)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
