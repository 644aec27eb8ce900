"""One number for how a run of tasks ended: high if much is known, and the first task is kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from trainplan.errors import PlanError


def retention(average: Any, learned: Any, kept: Any) -> npt.NDArray[np.float64]:
    """F = 2 a / ((t - t') a + 1), from the final accuracy and what the first task lost.

    The outcome by which Singh et al., 2023, arXiv 2211.15470, compare orders of classes. It lies
    from 0 to 2, and beyond only if the first task got better. Average accuracies over runs before,
    since the mean of F is not the F of means.

    Args:
        average: (...) a, accuracy over all tasks at the end, from 0 to 1.
        learned: (...) t, accuracy on the first task right after it was learned.
        kept: (...) t', accuracy on the first task at the end.

    Returns:
        (...) F; infinite where a is 1 and the first task rose from 0 to 1.

    Raises:
        PlanError: If one is no accuracy.

    >>> retention([0.2, 0.5], [1.0, 0.9], [0.0, 0.8]).round(4).tolist()
    [0.3333, 0.9524]
    """
    read = {"average": average, "learned": learned, "kept": kept}
    values = {name: np.asarray(value, dtype=np.float64) for name, value in read.items()}
    for name, found in values.items():
        if not ((found >= 0) & (found <= 1)).all():
            remedy = "Give shares from 0 to 1"
            raise PlanError("not an accuracy", place=name, value=found.tolist(), remedy=remedy)
    a = values["average"]
    with np.errstate(divide="ignore"):
        return np.asarray(2 * a / ((values["learned"] - values["kept"]) * a + 1))
