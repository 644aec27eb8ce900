"""The loss curves of a comparison as one table, which `trainplan.laws.load` reads."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainplan.lab.experiment import plan_curves
from trainplan.plan import Plan

if TYPE_CHECKING:
    from trainplan.lab.results import Comparison, Run

FILE = "curves.jsonl"


def curve_lines(comparison: Comparison) -> str:
    """One JSON object per step of every run: ``run``, ``seed``, ``step``, ``lr``, ``loss``.

    ``step`` counts completed updates, so the first line of a run is step 1. ``lr`` is the rate of
    the update that led there (of the first parameter group) and ``loss`` the training loss that it
    saw; both are left out where they are not known or not finite. Lines of steps after which the
    model was evaluated have ``eval_loss`` as well.
    """
    arms = {arm.name: plan_rates(arm.plan) for arm in comparison.experiment.arms}
    rows = (
        row
        for arm, rates in arms.items()
        for seed in comparison.experiment.seeds
        for row in _rows(comparison.runs[arm, seed], rates)
    )
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


def plan_rates(plan: Plan) -> NDArray[np.float64] | None:
    """Learning rate of every update of a plan, shape (steps,).

    ``None`` if the plan leaves the rate to the optimizer, or a controller decides it on the way.

    >>> from trainplan import schedules
    >>> plan_rates(Plan(horizon=4, lr=schedules.linear(0.4))).round(3).tolist()
    [0.4, 0.3, 0.2, 0.1]
    """
    curves = plan_curves(plan)
    if "lr[0]" not in curves.names:
        return None
    return curves.values[:, curves.names.index("lr[0]")]


def _rows(run: Run, planned: NDArray[np.float64] | None) -> Iterable[Mapping[str, Any]]:
    rates = planned if run.rates is None else run.rates
    evaluated = dict(
        zip(run.evaluated.tolist(), run.metrics.get("loss", np.zeros(0)).tolist(), strict=False)
    )
    for step, loss in enumerate(run.losses.tolist(), start=1):
        row: dict[str, Any] = {"run": run.arm, "seed": run.seed, "step": step}
        if rates is not None:
            row["lr"] = float(rates[step - 1])
        if math.isfinite(loss):
            row["loss"] = loss
        if math.isfinite(evaluated.get(step, math.nan)):
            row["eval_loss"] = evaluated[step]
        yield row
