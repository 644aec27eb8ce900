"""The results of a comparison as a table for the terminal."""

from __future__ import annotations

import math

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from trainplan.lab import forecast_view
from trainplan.lab.conclusion import conclude, differs
from trainplan.lab.results import Comparison, Summary
from trainplan.lab.statistics import Interval


def render(comparison: Comparison) -> RenderableType:
    """The table, what it is about above it, and the conclusion below."""
    experiment = comparison.experiment
    seeds = len(experiment.seeds)
    first = experiment.arms[0].name
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    table.add_column("arm", overflow="fold")
    for title in ("final loss", f"minus {first}", "P(better)"):
        table.add_column(title, justify="right")
    if comparison.factors:
        table.add_column("peak x", justify="right")
    table.add_column("tokens/s", justify="right")
    for summary in comparison.summaries:
        table.add_row(*_row(comparison, summary))
    about = (
        f"{experiment.workload.path}: {len(experiment.arms)} arms x {seeds} seeds, "
        f"{comparison.planned_steps} steps planned, {comparison.steps} trained"
    )
    note = "Final loss is on validation data; \u00b1 and brackets are 95% intervals over seeds."
    lines = [Text(f"- {sentence}") for sentence in conclude(comparison)]
    return Group(
        Text(about, style="dim"),
        Padding(table, (1, 0)),
        *lines,
        Text(note, style="dim"),
        *_predicted(comparison),
    )


def _predicted(comparison: Comparison) -> list[RenderableType]:
    sentences = [Text(f"- {sentence}") for sentence in forecast_view.sentences(comparison)]
    predicted = forecast_view.terminal_table(comparison)
    return [
        *([Padding(predicted, (1, 0))] if predicted else [Text("")] * bool(sentences)),
        *sentences,
    ]


def _row(comparison: Comparison, summary: Summary) -> list[Text | str]:
    difference = summary.difference
    style = "green" if differs(summary) and difference and difference.estimate < 0 else ""
    style = "red" if differs(summary) and difference and difference.estimate > 0 else style
    cells: list[Text | str] = [
        Text(summary.arm),
        "diverged" if summary.diverged else estimate(summary.mean),
        Text(estimate(difference, sign=True) if difference else "", style=style),
        probability(summary.improvement),
    ]
    if comparison.factors:
        cells.append(f"{comparison.factors[summary.arm]:g}")
    speed = summary.tokens_per_second
    cells.append(f"{speed:,.0f}" if math.isfinite(speed) else "")
    return cells


def estimate(value: Interval, *, sign: bool = False) -> str:
    """``estimate +-half the interval``, for intervals that are symmetric."""
    write = signed if sign else number
    half = (value.high - value.low) / 2
    return write(value.estimate) + (f" \u00b1{half:.4f}" if math.isfinite(half) else "")


def number(value: float) -> str:
    """Four decimals, or a dash if it is not finite."""
    return f"{value:.4f}" if math.isfinite(value) else "-"


def signed(value: float) -> str:
    """Four decimals with the sign, or a dash if it is not finite."""
    return f"{value:+.4f}" if math.isfinite(value) else "-"


def interval(value: Interval, *, sign: bool = False) -> str:
    """``low ... high``, or a dash without bounds."""
    if not (math.isfinite(value.low) and math.isfinite(value.high)):
        return "-"
    write = signed if sign else number
    return f"{write(value.low)} to {write(value.high)}"


def probability(value: Interval | None) -> str:
    """Per cent with its interval."""
    if value is None:
        return ""
    return f"{value.estimate:.0%} ({value.low:.0%}-{value.high:.0%})"


def show(comparison: Comparison, console: Console) -> None:
    """Print it."""
    console.print(render(comparison), highlight=False)
