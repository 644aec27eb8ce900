"""What a comparison found: every run's losses, and per arm what the seeds say together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainplan.lab.experiment import Experiment, plan_steps
from trainplan.lab.segments import Graph
from trainplan.lab.statistics import (
    Interval,
    holm,
    mean_interval,
    paired_difference,
    paired_p_value,
    probability_of_improvement,
)
from trainplan.lab.store import Outcome, RunDirectory, RunDirectoryError

if TYPE_CHECKING:
    from trainplan.lab.forecast import Forecast

FORMAT = "trainplan-results/1"


@dataclass(frozen=True, eq=False)
class Run:
    """One arm on one seed, from its first step to its last.

    Attributes:
        arm: Name of the arm.
        seed: Of the task.
        losses: Training loss of each step, before its update; shape (steps,).
        evaluated: Completed updates at each evaluation; shape (evaluations,).
        metrics: For each metric its values; NaN where it was not finite.
        grad_norms: ``grad_l2`` and ``grad_l1`` per step, if they were recorded.
        diverged_at: Completed updates at which the loss was no longer finite, or ``None``.
        weights: SHA-256 of the final weights.
        seconds: Time spent in training steps, those of shared segments included.
        tokens: Tokens trained on.
        rates: Learning rate of each step where a controller set it; else ``None``, since the plan
            says it.
    """

    arm: str
    seed: int
    losses: NDArray[np.float64]
    evaluated: NDArray[np.int64]
    metrics: Mapping[str, NDArray[np.float64]]
    grad_norms: Mapping[str, NDArray[np.float64]]
    diverged_at: int | None
    weights: str
    seconds: float
    tokens: int
    rates: NDArray[np.float64] | None = None

    def final(self, metric: str = "loss") -> float:
        """The last value of a metric; ``inf`` if the run diverged."""
        if self.diverged_at is not None or metric not in self.metrics:
            return math.inf
        return float(self.metrics[metric][-1])


@dataclass(frozen=True)
class Summary:
    """What the seeds of one arm say together, about the final validation loss.

    Attributes:
        arm: Name of the arm.
        finals: Final loss by seed, in the experiment's order; ``inf`` where it diverged.
        mean: Mean over seeds with its 95 % interval.
        difference: Mean of (this arm - the first arm) on the same seed, with its 95 % interval;
            ``None`` for the first arm itself.
        p_value: Of the paired t-test against the first arm, adjusted (Holm) for the number of
            arms; ``None`` for the first arm.
        improvement: Probability that a run of this arm has a lower loss than one of the first.
        tokens_per_second: While training; shared segments count for each arm.
        diverged: Seeds whose loss did not stay finite.
    """

    arm: str
    finals: tuple[float, ...]
    mean: Interval
    difference: Interval | None
    p_value: float | None
    improvement: Interval | None
    tokens_per_second: float
    diverged: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Comparison:
    """The outcome of an experiment.

    Attributes:
        experiment: What was run, with peaks as they were used.
        runs: By (arm, seed).
        summaries: One per arm, in the experiment's order.
        planned_steps: Steps of all runs, each counted alone; tuning included.
        steps: Steps that were trained, shared prefixes counted once; tuning included.
        factors: With tuning, the factor that each arm's peak was multiplied by.
        grid: With tuning, the factors that were tried.
        environment: Where it was run.
        workload: What the workload says about itself.
        forecast: What a law fitted to the first arms predicted of the others, if that was asked.
    """

    experiment: Experiment
    runs: Mapping[tuple[str, int], Run]
    summaries: tuple[Summary, ...]
    planned_steps: int
    steps: int
    factors: Mapping[str, float]
    grid: tuple[float, ...]
    environment: Mapping[str, Any]
    workload: Mapping[str, str]
    forecast: Forecast | None = None

    def summary(self, arm: str) -> Summary:
        """The summary of one arm."""
        return next(summary for summary in self.summaries if summary.arm == arm)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as ``results.json`` holds it; what is not finite is ``null``."""
        from trainplan.lab.conclusion import conclude
        from trainplan.lab.forecast import prediction_dict

        arms = []
        for arm, summary in zip(self.experiment.arms, self.summaries, strict=True):
            runs = [self.runs[arm.name, seed] for seed in self.experiment.seeds]
            statistics = asdict(summary)
            del statistics["tokens_per_second"], statistics["finals"]
            arms.append(
                {
                    "name": arm.name,
                    "plan": arm.plan.to_dict(),
                    "plan_digest": arm.plan.digest,
                    "peak_factor": self.factors.get(arm.name),
                    "runs": [_run_dict(run) for run in runs],
                    **statistics,
                }
            )
        speeds = {summary.arm: summary.tokens_per_second for summary in self.summaries}
        content = _strict(
            {
                "format": FORMAT,
                "experiment": self.experiment.to_dict(),
                "experiment_digest": self.experiment.digest,
                "workload": dict(self.workload),
                "steps": {"planned": self.planned_steps, "trained": self.steps},
                "tuning_grid": list(self.grid),
                "arms": arms,
                "conclusion": conclude(self),
                **({"prediction": prediction_dict(self)} if self.forecast else {}),
                "tokens_per_second": speeds,
                "environment": dict(self.environment),
            }
        )
        return dict(content)


def read_runs(
    experiment: Experiment,
    graph: Graph,
    outcomes: Mapping[str, Outcome],
    directory: RunDirectory,
) -> dict[tuple[str, int], Run]:
    """Put every run together from its segments.

    Raises:
        RunDirectoryError: If rows are missing.
    """
    rows = {key: list(directory.segment(key).rows()) for key in graph.segments}
    horizons = {arm.name: plan_steps(arm.plan) for arm in experiment.arms}
    runs = {}
    for (arm, seed), chain in graph.chains.items():
        history = [row for key in chain for row in rows[key]]
        parts = [outcomes[key] for key in chain]
        run = _run(arm, seed, history, parts, horizons[arm], experiment.eval_every)
        if run.diverged_at is None and len(run.losses) != horizons[arm]:
            raise RunDirectoryError(
                f"{directory.root} holds {len(run.losses)} of {horizons[arm]} steps of arm "
                f"{arm!r}, seed {seed}: delete its segments {', '.join(chain)} and resume"
            )
        runs[arm, seed] = run
    return runs


def _run(
    arm: str,
    seed: int,
    history: Sequence[Mapping[str, Any]],
    parts: Sequence[Outcome],
    horizon: int,
    eval_every: int,
) -> Run:
    steps = [row for row in history if "eval" not in row]
    # A shared segment is also evaluated where another arm ends; that is no evaluation of this one.
    evals = [
        row
        for row in history
        if "eval" in row and (row["step"] % eval_every == 0 or row["step"] == horizon)
    ]
    names = list(evals[-1]["eval"]) if evals else []
    norms = [name for name in ("grad_l2", "grad_l1") if steps and name in steps[0]]
    diverged = [part.diverged_at for part in parts if part.diverged_at is not None]
    return Run(
        arm=arm,
        seed=seed,
        losses=_column([row["loss"] for row in steps]),
        evaluated=np.array([row["step"] for row in evals], dtype=np.int64),
        metrics={name: _column([row["eval"].get(name) for row in evals]) for name in names},
        grad_norms={name: _column([row[name] for row in steps]) for name in norms},
        diverged_at=diverged[0] if diverged else None,
        weights=parts[-1].weights,
        seconds=sum(part.seconds for part in parts),
        tokens=sum(part.tokens for part in parts),
        rates=_column([row["lr"] for row in steps]) if steps and "lr" in steps[0] else None,
    )


def summarize(experiment: Experiment, runs: Mapping[tuple[str, int], Run]) -> tuple[Summary, ...]:
    """Compare every arm with the first, on the seeds that both ran on."""
    finals = {
        arm.name: [runs[arm.name, seed].final() for seed in experiment.seeds]
        for arm in experiment.arms
    }
    first = finals[experiment.arms[0].name]
    others = [arm.name for arm in experiment.arms[1:]]
    adjusted = dict(
        zip(others, holm([paired_p_value(finals[name], first) for name in others]), strict=True)
    )
    return tuple(
        _summary(name, losses, first, adjusted.get(name), experiment.seeds, runs)
        for name, losses in finals.items()
    )


def _summary(
    name: str,
    losses: list[float],
    first: list[float],
    p_value: float | None,
    seeds: Sequence[int],
    runs: Mapping[tuple[str, int], Run],
) -> Summary:
    is_first = p_value is None
    mine = [runs[name, seed] for seed in seeds]
    seconds = sum(run.seconds for run in mine)
    return Summary(
        arm=name,
        finals=tuple(losses),
        mean=mean_interval(losses),
        difference=None if is_first else paired_difference(losses, first),
        p_value=p_value,
        improvement=None if is_first else probability_of_improvement(losses, first),
        tokens_per_second=sum(run.tokens for run in mine) / seconds if seconds else math.nan,
        diverged=tuple(seed for seed in seeds if runs[name, seed].diverged_at is not None),
    )


def _run_dict(run: Run) -> dict[str, Any]:
    return {
        "seed": run.seed,
        "final": {name: float(values[-1]) for name, values in run.metrics.items()},
        "final_train_loss": float(run.losses[-1]) if run.losses.size else None,
        "diverged_at": run.diverged_at,
        "weights": run.weights,
    }


def _column(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def _strict(value: Any) -> Any:
    """Plain data without NaN and infinities, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
