"""The plots of a report, as plain data in Plotly's JSON format.

Colours tell the arms apart for people with any kind of colour vision (after Okabe and Ito 2008) and
stand out on white and on black; the first arm, which the others are compared with, is grey. Colours
of text, axes and background are left to the page, which has a light and a dark theme.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainplan.lab.experiment import Arm, plan_steps, plan_times
from trainplan.lab.results import Comparison, Run
from trainplan.lab.statistics import Interval

Figure = dict[str, Any]

_REFERENCE = "#8a8f98"
_COLOURS = ("#3b82c4", "#e08a00", "#12a67c", "#d05fa2", "#d9480f", "#8b6bd6", "#38a9d9", "#a08c00")
_DASHES = ("solid", "dash", "dot", "dashdot")
_POINTS = 600
_BINS = 60


def colour(index: int) -> str:
    """Colour of the arm at ``index``."""
    return _REFERENCE if index == 0 else _COLOURS[(index - 1) % len(_COLOURS)]


def dash(index: int) -> str:
    """Line style of the arm at ``index``: another one when the colours begin again."""
    return _DASHES[max(index - 1, 0) // len(_COLOURS) % len(_DASHES)]


def figures(comparison: Comparison) -> dict[str, Figure]:
    """All plots by the id of their place in the page."""
    knobs = changing_knobs(comparison.experiment.arms)
    return {
        "finals": finals(comparison),
        **({"differences": differences(comparison)} if len(comparison.summaries) > 1 else {}),
        "validation": validation_curves(comparison),
        "training": training_curves(comparison),
        **{f"knob-{name}": knob_curves(comparison.experiment.arms, name) for name in knobs},
    }


def finals(comparison: Comparison) -> Figure:
    """Final loss of every seed as dots, with mean and interval beside them."""
    traces: list[dict[str, Any]] = []
    for index, summary in enumerate(comparison.summaries):
        seeds = comparison.experiment.seeds
        name = _name(summary.arm)
        values = [value if math.isfinite(value) else None for value in summary.finals]
        dots = {
            "x": values,
            "y": [index + 0.22] * len(values),
            "mode": "markers",
            "marker": {"size": 6, "color": colour(index), "opacity": 0.55},
            "text": [f"{name}, seed {seed}" for seed in seeds],
            "hovertemplate": "%{text}: %{x:.4f}<extra></extra>",
        }
        traces += [dots, _whisker(summary.mean, index, name)]
    return {"data": traces, "layout": _arms_layout(comparison, "final validation loss")}


def differences(comparison: Comparison) -> Figure:
    """Paired difference to the first arm with its interval, and the line at zero."""
    traces = [
        _whisker(summary.difference, index, _name(summary.arm))
        for index, summary in enumerate(comparison.summaries)
        if summary.difference is not None
    ]
    first = _name(comparison.summaries[0].arm)
    layout = _arms_layout(comparison, f"loss minus that of {first} (left is better)")
    layout["yaxis"]["range"] = [len(comparison.summaries) - 0.4, 0.4]
    layout["shapes"] = [
        {
            "type": "line",
            "xref": "x",
            "yref": "paper",
            "x0": 0,
            "x1": 0,
            "y0": 0,
            "y1": 1,
            "line": {"width": 1.5, "dash": "dot", "color": _REFERENCE},
        }
    ]
    return {"data": traces, "layout": layout}


def validation_curves(comparison: Comparison) -> Figure:
    """Validation loss over steps: every seed thin, the mean bold."""
    curves = {
        arm.name: [
            (run.evaluated.astype(np.float64), run.metrics["loss"])
            for run in _runs(comparison, arm.name)
            if "loss" in run.metrics
        ]
        for arm in comparison.experiment.arms
    }
    return _loss_figure(curves, "validation loss")


def training_curves(comparison: Comparison) -> Figure:
    """Training loss over steps, averaged within stretches of steps to tame its noise."""
    curves = {
        arm.name: [_binned(run.losses) for run in _runs(comparison, arm.name)]
        for arm in comparison.experiment.arms
    }
    return _loss_figure(curves, "training loss")


def knob_curves(arms: Sequence[Arm], knob: str) -> Figure:
    """One knob of every arm over steps."""
    traces = []
    for index, arm in enumerate(arms):
        curve = _knob(arm, knob)
        if curve is None:
            continue
        steps, values = curve
        traces.append(
            {
                **_line(index, _name(arm.name), 2.2),
                "x": steps.tolist(),
                "y": values.tolist(),
                "hovertemplate": "%{y:.4g}",
            }
        )
    return {"data": traces, "layout": _curve_layout(_knob_title(knob))}


def changing_knobs(arms: Sequence[Arm]) -> list[str]:
    """The knobs worth a plot: those that change during some run or differ between arms."""
    names = sorted({name for arm in arms for name in arm.plan.knobs})
    chosen = []
    for name in names:
        curves = [curve for arm in arms if (curve := _knob(arm, name)) is not None]
        values = np.concatenate([values for _, values in curves]) if curves else np.zeros(0)
        if values.size and np.ptp(values) > 0:
            chosen.append(name)
    return sorted(chosen, key=lambda name: name != "lr")


def _knob(arm: Arm, knob: str) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Steps and values of a knob that is one schedule; ``None`` for other ones."""
    plan = arm.plan
    if knob not in plan.knobs or knob in plan.controllers or isinstance(plan.knobs[knob], tuple):
        return None
    total = plan_steps(plan)
    # A short decay must not fall between two points, so a run of usual length is drawn in full.
    steps = np.unique(np.linspace(0, total - 1, min(total, 4 * _POINTS)).astype(np.int64))
    times = np.asarray(plan_times(plan, total), dtype=np.float64)[steps]
    return steps.astype(np.float64), np.asarray(plan[knob](times), dtype=np.float64)


def _loss_figure(
    curves: Mapping[str, Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]], title: str
) -> Figure:
    seeds: list[dict[str, Any]] = []
    means: list[dict[str, Any]] = []
    tops, bottoms = [], []
    for index, (arm, runs) in enumerate(curves.items()):
        name = _name(arm)
        for steps, losses in runs:
            thin = {**_line(index, name, 1), "opacity": 0.3, "hoverinfo": "skip"}
            seeds.append({**thin, "x": steps.tolist(), "y": _plain(losses), "showlegend": False})
        steps, mean = _mean(runs)
        bold = {**_line(index, name, 2.6), "hovertemplate": "%{y:.4f}"}
        means.append({**bold, "x": steps.tolist(), "y": _plain(mean)})
        settled = mean[len(mean) // 5 :]
        settled = settled[np.isfinite(settled)]
        if settled.size:
            tops.append(settled.max())
            bottoms.append(settled.min())
    layout = _curve_layout(title)
    if tops:
        # The steep beginning would flatten all that matters; a double click shows it.
        low, high = min(bottoms), max(tops)
        margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
        layout["yaxis"]["range"] = [low - margin, high + margin]
    return {"data": seeds + means, "layout": layout}


def _mean(
    runs: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean over seeds where all of them have a value."""
    if not runs:
        return np.zeros(0), np.zeros(0)
    length = min(len(losses) for _, losses in runs)
    stacked = np.stack([losses[:length] for _, losses in runs])
    return runs[0][0][:length], np.asarray(stacked.mean(axis=0), dtype=np.float64)


def _binned(losses: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means over at most ``_BINS`` stretches of equal length, at the stretches' middles."""
    if not losses.size:
        return np.zeros(0), np.zeros(0)
    width = max(1, math.ceil(len(losses) / _BINS))
    whole = len(losses) // width * width
    means = losses[:whole].reshape(-1, width).mean(axis=1)
    middles = np.arange(len(means), dtype=np.float64) * width + (width + 1) / 2
    return middles, np.asarray(means, dtype=np.float64)


def _whisker(interval: Interval, index: int, name: str) -> dict[str, Any]:
    """A diamond at the estimate with the interval as error bars."""
    bounded = math.isfinite(interval.low) and math.isfinite(interval.high)
    reach = f" ({interval.low:.4f} to {interval.high:.4f})" if bounded else ""
    return {
        "x": [interval.estimate if math.isfinite(interval.estimate) else None],
        "y": [index],
        "mode": "markers",
        "marker": {"size": 11, "symbol": "diamond", "color": colour(index)},
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [interval.high - interval.estimate if bounded else 0],
            "arrayminus": [interval.estimate - interval.low if bounded else 0],
            "color": colour(index),
            "thickness": 2.2,
            "width": 6,
        },
        "hovertemplate": f"{name}: %{{x:.4f}}{reach}<extra></extra>",
    }


def _line(index: int, name: str, width: float) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "legendgroup": str(index),
        "line": {"color": colour(index), "width": width, "dash": dash(index)},
    }


def _arms_layout(comparison: Comparison, title: str) -> dict[str, Any]:
    names = [_name(summary.arm) for summary in comparison.summaries]
    return {
        "showlegend": False,
        "xaxis": {"title": {"text": title}, "zeroline": False},
        "yaxis": {
            "tickvals": list(range(len(names))),
            "ticktext": names,
            "range": [len(names) - 0.4, -0.6],
            "showgrid": False,
            "zeroline": False,
        },
        "height": 120 + 46 * len(names),
    }


def _curve_layout(title: str) -> dict[str, Any]:
    return {
        "showlegend": True,
        "hovermode": "x unified",
        "xaxis": {"title": {"text": "steps"}, "zeroline": False},
        "yaxis": {"title": {"text": title}, "zeroline": False},
        "height": 420,
    }


def _runs(comparison: Comparison, arm: str) -> list[Run]:
    return [comparison.runs[arm, seed] for seed in comparison.experiment.seeds]


def _knob_title(knob: str) -> str:
    return "learning rate" if knob == "lr" else knob.replace("_", " ")


def _plain(values: NDArray[np.float64]) -> list[float | None]:
    return [round(value, 6) if math.isfinite(value) else None for value in values.tolist()]


def _name(arm: str) -> str:
    """Plotly reads a few HTML tags in names; an arm's name is text."""
    return html.escape(arm, quote=False)
