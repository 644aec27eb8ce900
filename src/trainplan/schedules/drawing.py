"""Look at a schedule: a line of blocks for the terminal, a plot for everything else."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from trainplan._extras import require
from trainplan.schedules.base import Schedule
from trainplan.schedules.phases import needs_horizon

_BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(schedule: Schedule, horizon: float | None = None, width: int = 60) -> str:
    """The curve in one line of block characters, from its lowest to its highest value.

    >>> from trainplan.schedules import linear
    >>> sparkline(linear(1.0), 100, width=8)
    '█▇▆▅▄▃▂▁'
    """
    _, values = points(schedule, horizon, width)
    return blocks(values)


def blocks(values: Any) -> str:
    """Numbers as block characters, scaled to their own range."""
    array = np.asarray(values, dtype=np.float64)
    low, high = float(array.min()), float(array.max())
    if high <= low:
        return _BLOCKS[3] * array.size
    level = np.clip(np.round((array - low) / (high - low) * 7), 0, 7).astype(int)
    return "".join(_BLOCKS[i] for i in level)


def points(
    schedule: Schedule, horizon: float | None = None, most: int = 2000
) -> tuple[np.ndarray, np.ndarray]:
    """Times over the horizon (or the schedule's own length) and the values there."""
    ready = schedule if horizon is None else schedule.resolve(horizon)
    length = horizon if horizon is not None else ready.curve.length
    if not math.isfinite(length):
        raise needs_horizon()
    times = np.linspace(0, length, most)
    return times, ready(times)


def plot(schedule: Schedule, horizon: float | None = None, *, ax: Any = None, **style: Any) -> Any:
    """Draw the curve over the horizon.

    Args:
        schedule: What to draw.
        horizon: Length of the run; not needed if all durations are absolute.
        ax: matplotlib axes to draw into; new ones by default.
        **style: Passed to ``Axes.plot``.

    Returns:
        The axes.
    """
    if ax is None:
        figure_module = require("matplotlib.figure", extra="plot")
        ax = figure_module.Figure(figsize=(7, 3.2), layout="constrained").subplots()
        ax.set_xlabel("time")
        ax.spines[["top", "right"]].set_visible(False)
    times, values = points(schedule, horizon)
    ax.plot(times, values, **style)
    return ax
