"""What learning one task does to others, from accuracies after each of them.

The measures of Lopez-Paz and Ranzato, 2017, "Gradient Episodic Memory for Continual Learning",
arXiv 1706.08840, as averaged by Yildirim et al., 2024, arXiv 2308.14831.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trainplan.errors import PlanError


@dataclass(frozen=True)
class Transfer:
    """Transfer between tasks, in the unit of the accuracies.

    Attributes:
        backward: (T,) after task i, the mean change on earlier tasks since each was learned; below
            zero is forgetting. 0 for the first.
        forward: (T,) after task i, the mean accuracy on the tasks that follow. 0 for the last.
        incremental: (T,) at the end, the mean accuracy on tasks 0 to i.
        average_backward: That of the last task.
        average_forward: The mean over all tasks but the last.
        accuracy: The mean over all tasks at the end.
    """

    backward: npt.NDArray[np.float64]
    forward: npt.NDArray[np.float64]
    incremental: npt.NDArray[np.float64]
    average_backward: float
    average_forward: float
    accuracy: float


def transfer(accuracies: Any) -> Transfer:
    """Backward and forward transfer.

    Args:
        accuracies: (T, T) with [i, j] the accuracy on task j after learning task i; what is never
            used (forward accuracies, say) may be NaN and makes only the measures of it NaN.

    Raises:
        PlanError: If it is not a square table.

    >>> found = transfer([[0.9, 0.2], [0.7, 0.8]])
    >>> round(found.average_backward, 6), found.average_forward, found.accuracy
    (-0.2, 0.2, 0.75)
    """
    table = np.asarray(accuracies, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] != table.shape[1] or not len(table):
        remedy = "Give a row after each task, with a column for each task"
        raise PlanError("not a square table", place="accuracies", value=table.shape, remedy=remedy)
    tasks = np.arange(len(table))
    change = table - np.diagonal(table)
    backward = np.asarray([change[i, :i].mean() if i else 0.0 for i in tasks])
    forward = np.asarray([table[i, i + 1 :].mean() if i + 1 < len(table) else 0.0 for i in tasks])
    return Transfer(
        backward=backward,
        forward=forward,
        incremental=np.cumsum(table[-1]) / (tasks + 1),
        average_backward=float(backward[-1]),
        average_forward=float(forward[:-1].mean()) if len(table) > 1 else 0.0,
        accuracy=float(table[-1].mean()),
    )
