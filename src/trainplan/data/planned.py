"""The order that a plan's ``data`` says, for a data set and a batch size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trainplan.data.curriculum import Curriculum
from trainplan.data.difficulty import Difficulty, column_difficulty
from trainplan.data.mixing import Mixture
from trainplan.data.shapes import Shapes
from trainplan.data.sources import Shuffle, Source
from trainplan.data.varied_batches import VariedBatches
from trainplan.data_plan import DataPlan
from trainplan.errors import PlanError
from trainplan.plan import Plan
from trainplan.schedules.durations import Span


def from_plan(plan: Plan, dataset: Any, global_batch: int | None = None) -> Source:
    """What a run under this plan sees.

    Args:
        plan: With ``data``.
        dataset: The data set; for a mixture a mapping from names to data sets, which the loader
            reads as `Joined`.
        global_batch: Examples of an optimizer step over all ranks and accumulated micro-batches;
            by default the plan's ``samples_per_step``.

    Returns:
        A `Curriculum`, a `Mixture`, or `VariedBatches` of a `Shuffle`, of the plan's length, with
        the plan's shapes.

    Raises:
        PlanError: If the plan says nothing of the data, or a name or column is missing.

    >>> import trainplan as tp
    >>> data = {"difficulty": {"column": "length"}, "pacing": "root"}
    >>> plan = tp.Plan(horizon=20, lr=0.1, data=data)
    >>> source = from_plan(plan, {"length": [5, 1, 4, 2, 3, 9, 8, 7, 6, 0]}, global_batch=2)
    >>> [source.open_at(step) for step in (0, 5, 10)]
    [2, 8, 10]
    """
    data = plan.ready_data
    if data is None:
        raise PlanError(
            "the plan says nothing of the data",
            place="data",
            value=None,
            remedy="Give data={'difficulty': ..., 'pacing': ...} or {'mixture': ...}",
        )
    size = global_batch if global_batch is not None else plan.rates.get("samples_per_step")
    if data.global_batch is not None:
        return _varied(plan, data, dataset, global_batch)
    if size is None:
        raise PlanError(
            "the size of a step is not known",
            place="global_batch",
            value=None,
            remedy="Give global_batch=..., or the plan samples_per_step",
        )
    size = int(size)
    units, steps = _time(plan, size)
    source = _ordered(data, dataset, size, steps, units)
    if data.shape is not None:
        source.shapes = Shapes(data.shape, multiple=data.shape_multiple, units_per_step=units)
    return source


def _varied(plan: Plan, data: DataPlan, dataset: Any, global_batch: int | None) -> Source:
    """Shuffled data in batches of changing size."""
    if plan.unit != "steps" or global_batch is not None:
        value = plan.unit if global_batch is None else global_batch
        raise PlanError(
            "the size of a step is the plan's schedule, over steps",
            place="unit" if global_batch is None else "global_batch",
            value=value,
            remedy="Count the plan in steps, and give no other size",
        )
    shape = data.shape and Shapes(data.shape, multiple=data.shape_multiple)
    return VariedBatches(
        Shuffle(len(dataset), 1, data.seed),
        data.global_batch,
        steps=None if plan.horizon is None else int(plan.horizon),
        multiple=data.batch_multiple,
        round=data.round,  # type: ignore[arg-type]  # checked by the plan
        shape=shape,
    )


def _ordered(data: DataPlan, dataset: Any, size: int, steps: int | None, units: float) -> Source:
    if data.mixture is not None:
        return _mixture(data, dataset, size, steps, units)
    if data.difficulty is None:
        return VariedBatches(Shuffle(len(dataset), size, data.seed), size, steps=steps)
    return Curriculum(
        _difficulty(data, dataset, "data.difficulty"),
        data.pacing,
        size,
        data.seed,
        steps=steps,
        by=data.by,  # type: ignore[arg-type]  # both are checked by the plan
        within=data.within,  # type: ignore[arg-type]
        hardest_first=data.hardest_first,
        units_per_step=units,
    )


def _time(plan: Plan, size: int) -> tuple[float, int | None]:
    """The plan's units per step, and the number of steps."""
    rates = {"samples_per_step": float(size), **plan.rates}
    span = Span.of(plan.horizon, plan.unit, rates)
    units = span.convert(1, "steps", plan.unit)
    if plan.horizon is None:
        return units, None
    return units, max(int(span.convert(plan.horizon, plan.unit, "steps")), 1)


def _mixture(data: DataPlan, datasets: Any, size: int, steps: int | None, units: float) -> Mixture:
    assert data.mixture is not None  # noqa: S101 - only called with one
    if not isinstance(datasets, Mapping) or set(datasets) != set(data.mixture):
        given = sorted(datasets) if isinstance(datasets, Mapping) else type(datasets).__name__
        raise PlanError(
            f"the mixture is of {sorted(data.mixture)}",
            place="dataset",
            value=given,
            remedy="Give a mapping with these data sets by name",
        )
    difficulty = None
    if data.difficulty is not None:
        if data.within != "pass" or data.by != "fraction" or "file" in data.difficulty:
            raise PlanError(
                "in a mixture, data sets open by fraction and pass, by a column of their own",
                place="data.difficulty",
                value=dict(data.difficulty),
                remedy="Leave by and within to their defaults, and write {column: NAME}",
            )
        difficulty = {
            name: _difficulty(data, dataset, "data.difficulty")
            for name, dataset in datasets.items()
        }
    return Mixture(
        {name: len(datasets[name]) for name in data.mixture},
        data.mixture,
        size,
        data.seed,
        steps=steps,
        exhausted=data.exhausted,  # type: ignore[arg-type]  # checked by the plan
        max_epochs=data.max_epochs,
        difficulty=difficulty,
        pacing=data.pacing,
        hardest_first=data.hardest_first,
        units_per_step=units,
    )


def _difficulty(data: DataPlan, dataset: Any, place: str) -> Difficulty:
    assert data.difficulty is not None  # noqa: S101 - only called with one
    ((kind, name),) = data.difficulty.items()
    if kind == "column":
        return column_difficulty(dataset, name)
    path = Path(name)
    if not path.exists():
        raise PlanError("there is no such file", place=f"{place}.file", value=name)
    values: Difficulty = np.load(path, mmap_mode="r", allow_pickle=False)
    return values
