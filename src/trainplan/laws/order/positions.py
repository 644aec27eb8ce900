"""How a batch's place in the order changes what the model remembers of it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from trainplan.errors import PlanError
from trainplan.files import write_atomically
from trainplan.laws.order.estimator import OrderEstimator
from trainplan.laws.order.progress import progress_over


def move_batch(order: Sequence[int], batch: int, position: int) -> list[int]:
    """The order with one batch moved; the others keep theirs among themselves.

    >>> move_batch([0, 1, 2, 3], batch=3, position=1)
    [0, 3, 1, 2]
    """
    rest = [j for j in order if j != batch]
    return [*rest[:position], batch, *rest[position:]]


def position_effects(
    estimator: OrderEstimator,
    eval_fn: Callable[[nn.Module, int], float],
    *,
    which: Sequence[int] | None = None,
    positions: Sequence[int] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    show: bool | None = None,
) -> npt.NDArray[np.float64]:
    """M[i, p]: what is measured on batch ``which[i]`` when it stands at ``positions[p]``.

    With the batch's own loss this is memorisation by position, which mostly measures recency; with
    the loss of held-out data, how much its place matters for generalisation. All other batches stay
    in the reference order; with several passes the batch moves in each.

    Args:
        estimator: Of the recorded run.
        eval_fn: ``eval_fn(model, batch number)``, run without gradients.
        which: The batches; all by default.
        positions: The places; all by default.
        checkpoint: A JSON file written after every estimate, and gone on from if it exists.
        show: Whether to draw a progress bar; by default if somebody is watching.

    Returns:
        ``[len(which), len(positions)]``; NaN where an estimate left the radius of the expansion.

    Raises:
        PlanError: If a batch or place does not exist, or the file holds another matrix.
    """
    number = len(estimator.batches)
    rows = list(range(number)) if which is None else [int(i) for i in which]
    columns = list(range(number)) if positions is None else [int(p) for p in positions]
    for place, values in (("which", rows), ("positions", columns)):
        wrong = [v for v in values if not 0 <= v < number]
        if wrong:
            remedy = f"Between 0 and {number - 1}"
            raise PlanError("does not exist", place=place, value=wrong[0], remedy=remedy)
    path = None if checkpoint is None else Path(checkpoint)
    cells = [(i, p) for i in range(len(rows)) for p in range(len(columns))]
    settings = {"which": rows, "positions": columns, "reference": estimator.reference}
    done = _read(path, settings)
    estimator.prepare()
    for cell in progress_over(cells[len(done) :], "Positions", show):
        done.append(_measure(estimator, eval_fn, rows[cell[0]], columns[cell[1]]))
        if path is not None:
            write_atomically(path, json.dumps({"settings": settings, "values": done}))
    return np.array(done, dtype=np.float64).reshape(len(rows), len(columns))


def _measure(
    estimator: OrderEstimator, eval_fn: Callable[[nn.Module, int], float], i: int, p: int
) -> float:
    number, reference = len(estimator.batches), estimator.reference
    passes = [reference[s : s + number] for s in range(0, len(reference), number)]
    found = estimator.estimate([j for one in passes for j in move_batch(one, i, p)])
    if found.stopped_at is not None:
        return math.nan
    with torch.no_grad():
        return float(eval_fn(estimator.model(found), i))


def _read(path: Path | None, settings: dict[str, Any]) -> list[float]:
    if path is None or not path.exists():
        return []
    saved = json.loads(path.read_text(encoding="utf-8"))
    if saved["settings"] != settings:
        remedy = "Name another file, or delete it"
        raise PlanError("holds another matrix", place="checkpoint", value=str(path), remedy=remedy)
    return [float(v) for v in saved["values"]]
