"""The results of a comparison as one HTML file that needs nothing else, not even a network."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any

from trainplan._extras import require
from trainplan._version import __version__
from trainplan.lab import forecast_view, table
from trainplan.lab.conclusion import conclude
from trainplan.lab.experiment import plan_steps
from trainplan.lab.figures import colour, figures
from trainplan.lab.results import Comparison, Summary


def render(comparison: Comparison) -> str:
    """The whole page.

    Raises:
        MissingExtraError: If Plotly is not installed.
    """
    library = require("plotly.offline", extra="lab").get_plotlyjs()
    plots = {**figures(comparison), **forecast_view.figures(comparison)}
    parts = {
        "TITLE": html.escape(_title(comparison)),
        "SUBTITLE": html.escape(_subtitle(comparison)),
        "CONCLUSION": "\n".join(_sentences(comparison)),
        "TABLE": _table(comparison),
        "FINALS": "\n".join(_place(name) for name in ("finals", "differences") if name in plots),
        "KNOBS": "\n".join(_place(name) for name in plots if name.startswith("knob-")),
        "PREDICTION": forecast_view.section(comparison),
        "STEPS": _steps(comparison),
        "WORKLOAD": _definitions(comparison.workload),
        "ENVIRONMENT": _definitions(comparison.environment),
        "PLANS": "\n".join(_plans(comparison)),
        "FIRST": html.escape(comparison.summaries[0].arm),
        "VERSION": html.escape(__version__),
        "DATA": _script_json(plots),
        "PLOTLY": library,
    }
    page = resources.files("trainplan.lab").joinpath("report.html").read_text(encoding="utf-8")
    # One pass, so that nothing inserted is looked at again, whatever an arm is called.
    return re.sub(r"@@([A-Z]+)@@", lambda match: parts[match[1]], page)


def _title(comparison: Comparison) -> str:
    names = [arm.name for arm in comparison.experiment.arms]
    return f"{len(names)} plans on {comparison.experiment.workload.path}" if names[1:] else names[0]


def _subtitle(comparison: Comparison) -> str:
    experiment = comparison.experiment
    budgets = sorted({plan_steps(arm.plan) for arm in experiment.arms})
    steps = f"{budgets[0]:,}" if len(budgets) == 1 else f"{budgets[0]:,} to {budgets[-1]:,}"
    seeds = len(experiment.seeds)
    date = str(comparison.environment.get("date", ""))[:10]
    peaks = ", each arm's peak tuned" if comparison.factors else ""
    return f"{steps} steps, {seeds} seed{'s' if seeds > 1 else ''}{peaks}. {date}"


def _sentences(comparison: Comparison) -> Iterable[str]:
    for text in conclude(comparison):
        marked = re.sub("(--[a-z-]+)", r"<code>\1</code>", html.escape(text))
        yield f"<li>{marked}</li>"


def _table(comparison: Comparison) -> str:
    first = html.escape(comparison.summaries[0].arm)
    tuned = bool(comparison.factors)
    titles = [
        "arm",
        "final loss",
        "95% interval",
        f"minus {first}",
        "95% interval",
        "p (adjusted)",
        "P(better)",
        *(["peak"] if tuned else []),
        "tokens/s",
    ]
    head = "".join(f"<th>{title}</th>" for title in titles)
    rows = "\n".join(
        f"<tr>{''.join(_cells(comparison, summary, index))}</tr>"
        for index, summary in enumerate(comparison.summaries)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _cells(comparison: Comparison, summary: Summary, index: int) -> Iterable[str]:
    difference = summary.difference
    swatch = f'<i style="background:{colour(index)}"></i>'
    yield f"<th scope='row'>{swatch}{html.escape(summary.arm)}</th>"
    yield _cell("diverged" if summary.diverged else table.number(summary.mean.estimate))
    yield _cell(table.interval(summary.mean))
    yield _cell(table.signed(difference.estimate) if difference else "reference")
    yield _cell(table.interval(difference, sign=True) if difference else "")
    yield _cell("" if summary.p_value is None else _p_value(summary.p_value))
    yield _cell(table.probability(summary.improvement))
    if comparison.factors:
        yield _cell(f"x {comparison.factors[summary.arm]:g}")
    speed = summary.tokens_per_second
    yield _cell(f"{speed:,.0f}" if math.isfinite(speed) else "")


def _cell(text: str) -> str:
    return f"<td>{html.escape(text)}</td>"


def _p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _place(name: str) -> str:
    return f'<div class="plot" id="{html.escape(name)}"></div>'


def _steps(comparison: Comparison) -> str:
    planned, trained = comparison.planned_steps, comparison.steps
    share = trained / planned if planned else 1.0
    if trained == planned:
        text = f"{planned:,} steps were planned, and all of them were trained."
    else:
        text = (
            f"{planned:,} steps were planned and {trained:,} trained ({share:.0%}): where arms are "
            "equal to the last bit so far, the common part was trained once and then branched."
        )
    bar = f'<div class="meter"><div style="width:{100 * share:.1f}%"></div></div>'
    return f"<p>{html.escape(text)}</p>{bar}"


def _definitions(items: Mapping[str, Any]) -> str:
    rows = (
        f"<dt>{html.escape(str(name))}</dt><dd>{html.escape(str(value))}</dd>"
        for name, value in items.items()
    )
    return f"<dl>{''.join(rows)}</dl>"


def _plans(comparison: Comparison) -> Iterable[str]:
    for index, arm in enumerate(comparison.experiment.arms):
        swatch = f'<i style="background:{colour(index)}"></i>'
        text = html.escape(arm.plan.to_yaml())
        name = html.escape(arm.name)
        yield f"<details><summary>{swatch}{name}</summary><pre>{text}</pre></details>"


def _script_json(content: Any) -> str:
    """JSON inside a script element, where ``<`` could end the element."""
    return json.dumps(content, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
