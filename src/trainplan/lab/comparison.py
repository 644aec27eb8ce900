"""Compare training plans: train every arm on every seed, and say what the difference is.

    from trainplan import lab

    result = lab.compare([plan_a, plan_b], workload="text", steps=400, seeds=5)
    print(result.summary("plan_b").difference)

The same budget, seeds and data order for every arm; one thread per run, so the numbers do not
depend on how many run at a time; and everything is on disk while it runs, so that it can be
stopped and resumed at any moment.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainplan.errors import PlanError
from trainplan.lab import curves, forecast
from trainplan.lab.environment import available_cores, decides_numbers, environment
from trainplan.lab.experiment import Arm, Experiment, Tuning, last_for, plan_steps, tuning_name
from trainplan.lab.forecaster import Forecaster
from trainplan.lab.results import Comparison, Run, read_runs, summarize
from trainplan.lab.runner import JobSettings, Silent, Watcher, run_segments
from trainplan.lab.segments import Graph
from trainplan.lab.store import RunDirectory, RunDirectoryError
from trainplan.lab.workload import WorkloadSpec
from trainplan.plan import Plan

_EVALUATIONS = 12
"""Evaluations of an arm by default, evenly spaced and one at the end."""


class Quiet(Silent):
    """A watcher that says nothing."""

    def stage(self, title: str) -> None:
        """Say nothing."""

    def warn(self, message: str) -> None:
        """Say nothing."""


def compare(
    plans: Sequence[Plan | Arm],
    *,
    workload: str | WorkloadSpec = "text",
    steps: int | None = None,
    seeds: int | Sequence[int] = 5,
    jobs: int | None = None,
    out: str | Path | None = None,
    eval_every: int | None = None,
    tuning: Tuning | None = None,
    record_grad_norms: bool = False,
    share_prefixes: bool = True,
    predict_from: int = 0,
) -> Comparison:
    """Train several plans and compare their final validation losses.

    Args:
        plans: The arms; the first is the one that the others are compared with.
        workload: A built-in name, ``package.module:name``, or a spec with options.
        steps: Budget of every arm; by default each plan's own horizon.
        seeds: How many (0, 1, ...), or which.
        jobs: Worker processes; by default one per core. 0 trains in this process. The results do
            not depend on it.
        out: A new directory to keep everything in; by default a temporary one.
        eval_every: Evaluate after every so many steps; by default 12 times per run.
        tuning: Choose each arm's peak first; by default none.
        record_grad_norms: Record the length of the gradient at every step.
        share_prefixes: Train what arms have in common once.
        predict_from: Train so many arms first, fit a law to them, and predict the others before
            they end; 0 predicts nothing. See `trainplan.lab.forecast`.

    Raises:
        PlanError: If a plan, a name or a number cannot be used.
        RunDirectoryError: If ``out`` holds something already.
        LabError: If training fails.
    """
    spec = WorkloadSpec(workload) if isinstance(workload, str) else workload
    arms = as_arms(plans, steps)
    experiment = Experiment(
        arms=arms,
        seeds=tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds),
        workload=spec,
        eval_every=eval_every or default_eval_every(arms, predict=predict_from > 0),
        record_grad_norms=record_grad_norms,
        share_prefixes=share_prefixes,
        tuning=tuning,
    )
    workers = available_cores() if jobs is None else jobs
    if out is not None:
        session = begin(Path(out), experiment, workers, predict_from=predict_from)
        return execute(session, jobs=workers)
    with tempfile.TemporaryDirectory(prefix="trainplan-") as folder:
        session = begin(Path(folder), experiment, workers, predict_from=predict_from)
        return execute(session, jobs=workers)


def as_arms(plans: Sequence[Plan | Arm], steps: int | None) -> tuple[Arm, ...]:
    """Name the plans and give them their budget, if one is given."""
    if not plans:
        raise PlanError("there is nothing to compare", place="plans", value=list(plans))
    arms = []
    for number, given in enumerate(plans, start=1):
        plan = given.plan if isinstance(given, Arm) else given
        name = given.name if isinstance(given, Arm) else plan.name or f"plan {number}"
        arms.append(Arm(name, plan if steps is None else last_for(plan, steps)))
    return tuple(arms)


def default_eval_every(arms: Sequence[Arm], *, predict: bool = False) -> int:
    """So many steps that the longest arm is evaluated twelve times, or forty to fit a law to it."""
    times = forecast.EVALUATIONS if predict else _EVALUATIONS
    return max(1, math.ceil(max(plan_steps(arm.plan) for arm in arms) / times))


@dataclass(frozen=True, eq=False)
class Session:
    """An experiment and the directory it is run in. Made by `begin` or `resume`."""

    experiment: Experiment
    directory: RunDirectory
    workload_digest: str
    begun_in: Mapping[str, Any]


def begin(root: Path, experiment: Experiment, jobs: int, *, predict_from: int = 0) -> Session:
    """Start a new run directory for an experiment, which may predict its later arms.

    Raises:
        RunDirectoryError: If there is something at ``root`` already.
        PlanError: If the workload cannot be loaded.
    """
    if predict_from:
        forecast.check_count(experiment, predict_from)
    digest = experiment.workload.digest()
    experiment.graph(digest)  # what cannot be run fails before anything is written
    if experiment.tuning is not None:
        experiment.tuning_experiment()
    here = environment(jobs)
    manifest = {
        "experiment": experiment.to_dict(),
        "experiment_digest": experiment.digest,
        "workload_digest": digest,
        "environment": here,
    }
    directory = RunDirectory.create(root, manifest)
    for arm in experiment.arms:
        directory.write_text(f"plans/{file_name(arm.name)}.yaml", arm.plan.to_yaml())
    if predict_from:
        forecast.ask(directory, experiment, predict_from)
    return Session(experiment, directory, digest, here)


def resume(root: Path) -> Session:
    """Go on with what is in a run directory.

    Raises:
        RunDirectoryError: If it is missing, foreign or damaged, or its workload has changed.
    """
    directory, manifest = RunDirectory.open(root)
    try:
        experiment = Experiment.from_dict(manifest["experiment"])
        digest, begun_in = manifest["workload_digest"], manifest["environment"]
    except (KeyError, TypeError, PlanError) as error:
        directory.close()
        raise RunDirectoryError(f"{root / 'manifest.json'} is damaged: {error}") from error
    if experiment.workload.digest() != digest:
        directory.close()
        raise RunDirectoryError(
            f"the workload {experiment.workload.path!r} is not the one that {root} was begun with "
            "(its code, its options or its data have changed): start anew with another --out"
        )
    return Session(experiment, directory, digest, begun_in)


def execute(
    session: Session, *, jobs: int, watcher: Watcher | None = None, checkpoint_seconds: float = 30.0
) -> Comparison:
    """Train what is not trained yet, and put the results together.

    Raises:
        Interrupted: On Ctrl-C, after the states were saved.
        LabError: If training fails.
    """
    watcher = watcher or Quiet()
    here = environment(jobs)
    for name, value in decides_numbers(here).items():
        before = session.begun_in.get(name)
        if before != value:
            watcher.warn(f"begun with {name} {before}, continued with {value}: bits may differ")
    try:
        return _execute(session, jobs, watcher, checkpoint_seconds, here)
    finally:
        session.directory.close()


def _execute(
    session: Session,
    jobs: int,
    watcher: Watcher,
    checkpoint_seconds: float,
    here: Mapping[str, Any],
) -> Comparison:
    experiment, tuning = session.experiment, session.experiment.tuning
    planned = trained = 0
    factors: dict[str, float] = {}
    if tuning is not None:
        watcher.stage("Choosing each arm's peak")
        tries = experiment.tuning_experiment()
        runs, graph = _train(session, tries, jobs, watcher, checkpoint_seconds)
        planned, trained = graph.planned_steps, graph.steps
        factors = choose_factors(experiment, runs)
        session.directory.write_json("tuning.json", _tuning_dict(experiment, runs, factors))
        experiment = experiment.with_peaks(factors)
    watcher.stage("Comparing")
    forecaster = Forecaster.of(session.directory, experiment, watcher)
    runs, graph = _train(session, experiment, jobs, forecaster or watcher, checkpoint_seconds)
    describe = getattr(experiment.workload.load(), "describe", dict)
    comparison = Comparison(
        experiment=experiment,
        runs=runs,
        summaries=summarize(experiment, runs),
        planned_steps=planned + graph.planned_steps,
        steps=trained + graph.steps,
        factors=factors,
        grid=tuning.factors if tuning else (),
        environment=here,
        workload=describe(),
        forecast=forecaster.forecast if forecaster else None,
    )
    session.directory.write_text(curves.FILE, curves.curve_lines(comparison))
    return comparison


def _train(
    session: Session,
    experiment: Experiment,
    jobs: int,
    watcher: Watcher,
    checkpoint_seconds: float,
) -> tuple[dict[tuple[str, int], Run], Graph]:
    graph = experiment.graph(session.workload_digest)
    settings = JobSettings(
        workload=experiment.workload.to_dict(),
        plans={arm.name: arm.plan.to_dict() for arm in experiment.arms},
        eval_every=experiment.eval_every,
        record_grad_norms=experiment.record_grad_norms,
        checkpoint_seconds=checkpoint_seconds,
    )
    outcomes = run_segments(
        graph,
        session.directory,
        settings,
        jobs=jobs,
        listener=watcher,
        first=watcher.first(graph) if isinstance(watcher, Forecaster) else (),
    )
    return read_runs(experiment, graph, outcomes, session.directory), graph


def choose_factors(experiment: Experiment, runs: Mapping[tuple[str, int], Run]) -> dict[str, float]:
    """For each arm the factor with the lowest mean final loss over the tuning's seeds.

    Of equal ones the smallest is taken; a factor with a run that diverged counts as infinite.
    """
    tuning = experiment.tuning or Tuning()

    def mean_loss(arm: str, factor: float) -> float:
        name = tuning_name(arm, factor)
        return float(np.mean([runs[name, seed].final() for seed in tuning.seed_numbers()]))

    return {
        arm.name: min(sorted(tuning.factors), key=lambda factor: mean_loss(arm.name, factor))
        for arm in experiment.arms
    }


def _tuning_dict(
    experiment: Experiment,
    runs: Mapping[tuple[str, int], Run],
    factors: Mapping[str, float],
) -> dict[str, Any]:
    tuning = experiment.tuning or Tuning()
    tries = [
        {"arm": arm.name, "factor": factor, "seed": seed, "final": _or_none(run.final())}
        for arm in experiment.arms
        for factor in tuning.factors
        for seed in tuning.seed_numbers()
        for run in [runs[tuning_name(arm.name, factor), seed]]
    ]
    return {"factors": dict(factors), "tries": tries}


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def file_name(arm: str) -> str:
    """An arm's name as a file name: anything unusual becomes a dash.

    Example:
        >>> file_name("wsd (20% decay)"), file_name("../x")
        ('wsd--20--decay-', '---x')
    """
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in arm)
