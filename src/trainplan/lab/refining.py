"""From what a run recorded to the plan of the next: the norms, the old plan, the refined plan.

Refinement (Defazio et al., 2023, arXiv 2310.07831) computes the learning rate of a run from the
gradient norms of an earlier run of the same length, batch size and optimizer.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from trainplan.errors import PlanError, nearest
from trainplan.lab.comparison import file_name
from trainplan.lab.experiment import Arm, Experiment
from trainplan.lab.results import read_runs
from trainplan.lab.store import RunDirectory
from trainplan.laws.readers import read
from trainplan.laws.readers.raw import RawRun
from trainplan.laws.readers.tables import pick
from trainplan.plan import Plan
from trainplan.schedules.base import Schedule
from trainplan.schedules.refinement import refine

FloatArray = npt.NDArray[np.float64]
Optimizer = Literal["adam", "sgd"]

_NORMS = ("norm", "grad_norm", "gradient_norm", "train/grad_norm")
_OWN = {"adam": ("grad_l1", "l1"), "sgd": ("grad_l2", "l2")}
_RATES = ("lr", "learning_rate", "train/learning_rate")


@dataclass(frozen=True, eq=False)
class Recorded:
    """What a run recorded.

    Attributes:
        norms: Gradient norms, evenly spaced over the run; (n,).
        optimizer: Which kind of norm they are: L1 for ``adam``, L2 for ``sgd``.
        plan: The plan that was run, if it is known.
        rates: The learning rates that were logged, at even spacing; empty if none were.
        steps: The last step that was recorded.
        origin: Where the norms are from, in words.
        command: The command that compares the refined plan, for which it has the word REFINED,
            with the old one; empty if that is not known.
        notes: What a reader should know.
    """

    norms: FloatArray
    optimizer: Optimizer
    plan: Plan | None
    rates: FloatArray
    steps: int
    origin: str
    command: str = ""
    notes: tuple[str, ...] = ()


def recorded_by_the_lab(
    root: Path, *, arm: str | None = None, seed: int | None = None, optimizer: str | None = None
) -> Recorded:
    """The norms of one arm of a finished comparison, averaged over its seeds.

    Args:
        root: Directory of ``trainplan compare --record-grad-norms``.
        arm: Which arm; by default the only one, or the one called ``linear``, the schedule that
            the method's first run uses.
        seed: One seed instead of all.
        optimizer: ``adam`` or ``sgd``; by default what the workload's options say, else ``adam``.

    Raises:
        PlanError: If norms were not recorded, or there is no such arm or seed.
        RunDirectoryError: If it is not the directory of a comparison, or is in use.
    """
    directory, manifest = RunDirectory.open(root)
    try:
        results = directory.read_json("results.json")
        if results is None:
            raise PlanError(
                "the comparison is not finished",
                place=str(root),
                remedy=f"Finish it:  trainplan compare --resume --out {root}",
            )
        experiment = Experiment.from_dict(results["experiment"])
        if not experiment.record_grad_norms:
            raise PlanError(
                "no gradient norms were recorded",
                place=str(root),
                remedy="Run it with  trainplan compare --record-grad-norms",
            )
        chosen = _choose_arm(experiment.arms, arm)
        seeds = _choose_seeds(experiment.seeds, seed)
        graph = experiment.graph(manifest["workload_digest"])
        outcomes = {key: directory.segment(key).outcome() for key in graph.segments}
        whole = {key: outcome for key, outcome in outcomes.items() if outcome is not None}
        runs = read_runs(experiment, graph, whole, directory)
    except KeyError as error:
        raise PlanError(f"damaged: {error} is missing", place=str(root)) from None
    finally:
        directory.close()
    mine = [runs[chosen.name, one] for one in seeds]
    for run in mine:
        if run.diverged_at is not None:
            raise PlanError(
                f"arm {chosen.name!r} diverged with seed {run.seed}",
                place=str(root),
                remedy="Lower its peak, or choose another --arm or --seed",
            )
    kind = optimizer_kind(optimizer or experiment.workload.options.get("optimizer") or "adam")
    norms = np.mean([run.grad_norms[_OWN[kind][0]] for run in mine], axis=0)
    return Recorded(
        norms=np.asarray(norms, dtype=np.float64),
        optimizer=kind,
        plan=chosen.plan.replace(name=chosen.name),
        rates=np.empty(0),
        steps=norms.size,
        origin=f"arm {chosen.name!r}, {len(mine)} seed{'s' * (len(mine) > 1)}",
        command=_comparing(root / "plans" / f"{file_name(chosen.name)}.yaml", experiment),
    )


def recorded_in_a_log(
    path: Path, *, plan: Plan | None = None, optimizer: str = "adam", column: str | None = None
) -> Recorded:
    """The norms in a table with a column of steps: CSV, JSONL, or another log that can be read.

    Args:
        path: The log.
        plan: The plan that was run.
        optimizer: ``adam`` (columns ``grad_l1``, ``norm``, ``grad_norm``) or ``sgd``
            (``grad_l2``, ...).
        column: The norms' column, if it is called otherwise.

    Raises:
        PlanError: If there is no such column, or the log holds several runs.
    """
    kind = optimizer_kind(optimizer)
    run = _only(read(path), path)
    wanted = (column,) if column else (*_OWN[kind], *_NORMS)
    name = pick(run.series, wanted)
    if name is None:
        raise PlanError(
            f"no column {column!r} with gradient norms" if column else "no gradient norms",
            place=str(path),
            remedy=f"Columns there are: {', '.join(run.series)}. Name one with --column",
        )
    notes = list(run.notes)
    if kind == "adam" and pick([name], ("grad_norm", "train/grad_norm")):
        notes.append(
            f"{name} is an L2 norm in most trainers, and Adam's should be L1, before clipping: "
            "GradNormRecorder writes both"
        )
    steps, norms = _clean(run, name)
    rates = _evenly(*_clean(run, rate)) if (rate := pick(run.series, _RATES)) else np.empty(0)
    return Recorded(
        norms=_evenly(steps, norms),
        optimizer=kind,
        plan=plan,
        rates=rates,
        steps=int(steps[-1]),
        origin=f"column {name!r} of {path}",
        notes=tuple(notes),
    )


def refined_plan(
    recorded: Recorded, *, peak: float | None = None, tau: float = 0.1, horizon: int | None = None
) -> Plan:
    """The plan of the next run.

    Args:
        recorded: What the last one recorded.
        peak: Largest rate; by default that of the old plan, or of the rates that were logged.
        tau: Share of the run that the smoothing of the norms spans.
        horizon: Length; by default that of the old plan, or the last step that was recorded.

    Raises:
        PlanError: If the peak is not known, or the run stopped long before its horizon.
    """
    old = recorded.plan
    length = horizon or (old.horizon if old is not None and old.horizon else recorded.steps)
    counted = old is None or old.unit == "steps"
    if horizon is None and counted and recorded.steps < 0.9 * length:
        raise PlanError(
            f"the run recorded {recorded.steps} of {length:g} steps, and the norms of the rest "
            "are not known",
            place="norms",
            remedy="Finish the run, or give its true length with --horizon",
        )
    if peak is None:
        known = old_rates(recorded)
        if not known.size:
            raise PlanError(
                "the peak of the learning rate is not known",
                place="peak",
                value=None,
                remedy="Give --peak, or --plan with the plan that was run",
            )
        peak = float(known.max())
    lr = refine(recorded.norms, peak, optimizer=recorded.optimizer, tau=tau)
    if old is None:
        return Plan(horizon=length, name="refined", lr=lr)
    return old.replace(horizon=length, name=f"{old.name or 'plan'}-refined", lr=lr)


def old_rates(recorded: Recorded, points: int = 1000) -> FloatArray:
    """The learning rate that was run, at even spacing; empty if it is not known."""
    plan = recorded.plan
    if plan is not None and plan.horizon and isinstance(plan.knobs.get("lr"), Schedule):
        # Every step counts: a short peak may lie between two of fewer points.
        counted = plan.unit == "steps" and plan.horizon <= 1_000_000
        _, values = plan.curve("lr", None if counted else 100 * points)
        return np.asarray(values, dtype=np.float64)
    return recorded.rates


def optimizer_kind(name: Any) -> Optimizer:
    """``adam`` for it and its relatives, ``sgd`` for SGD.

    >>> optimizer_kind("AdamW")
    'adam'
    """
    plain = str(name).lower()
    if plain == "sgd":
        return "sgd"
    if plain.startswith("adam"):
        return "adam"
    raise PlanError(
        "unknown kind of optimizer",
        place="optimizer",
        value=name,
        remedy="Write adam (norms are L1) or sgd (norms are L2)",
    )


def _choose_arm(arms: Sequence[Arm], name: str | None) -> Arm:
    names = [arm.name for arm in arms]
    if name is None:
        name = names[0] if len(names) == 1 else "linear"
        if name not in names:
            remedy = f"Arms there are: {', '.join(names)}"
            raise PlanError("which arm's norms?", place="--arm", value=None, remedy=remedy)
    for arm in arms:
        if arm.name == name:
            return arm
    raise PlanError("no such arm", place="--arm", value=name, remedy=nearest(name, names))


def _choose_seeds(seeds: Sequence[int], seed: int | None) -> Sequence[int]:
    if seed is None:
        return seeds
    if seed not in seeds:
        remedy = f"Seeds there are: {', '.join(map(str, seeds))}"
        raise PlanError("no such seed", place="--seed", value=seed, remedy=remedy)
    return [seed]


def _comparing(old: Path, experiment: Experiment) -> str:
    workload = experiment.workload
    options = [f"--with={name}={value}" for name, value in workload.options.items()]
    words = ["trainplan", "compare", str(old), "REFINED", "--workload", workload.path, *options]
    return shlex.join([*words, "--tune-peak"])


def _only(runs: Sequence[RawRun], path: Path) -> RawRun:
    if len(runs) != 1:
        names = ", ".join(run.name for run in runs)
        raise PlanError(
            f"holds {len(runs)} runs ({names})",
            place=str(path),
            remedy="Give a file with the norms of one run",
        )
    return runs[0]


def _clean(run: RawRun, name: str) -> tuple[FloatArray, FloatArray]:
    """Steps that increase and values that are finite; of a step logged twice, the later value."""
    series = run.series[name]
    latest = dict(zip(series.steps.tolist(), series.values.tolist(), strict=True))
    pairs = sorted(
        (step, value) for step, value in latest.items() if np.isfinite([step, value]).all()
    )
    if not pairs:
        raise PlanError("holds no finite value", place=f"{run.source}: {name}")
    steps, values = zip(*pairs, strict=True)
    return np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)


def _evenly(steps: FloatArray, values: FloatArray) -> FloatArray:
    """The values at as many evenly spaced steps."""
    grid = np.linspace(steps[0], steps[-1], steps.size)
    return np.asarray(np.interp(grid, steps, values), dtype=np.float64)
