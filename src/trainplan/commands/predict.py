"""``trainplan predict``: what plans will do to the loss, before training them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from trainplan._extras import require
from trainplan.commands._law import HELP, law_of, with_peak_of
from trainplan.schedules.drawing import blocks

if TYPE_CHECKING:
    from trainplan.laws.choosing import Ranked
    from trainplan.laws.predictor import Prediction
    from trainplan.plan import Plan


def predict(
    plans: Annotated[
        list[Path], typer.Argument(metavar="PLAN.yaml...", help="Plan files.", show_default=False)
    ],
    law: Annotated[Path | None, typer.Option(help=HELP, show_default=False)] = None,
    steps: Annotated[
        int | None, typer.Option(min=2, help="Length of the runs (default: the plans' horizons).")
    ] = None,
    level: Annotated[
        float, typer.Option(min=0.01, max=0.99, help="Share of outcomes that bands should hold.")
    ] = 0.8,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Answer even what the curves cannot tell.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option(help="Draw the curves with their bands into an HTML file.")
    ] = None,
) -> None:
    """Predict the loss of plans and rank them.

    \b
    trainplan predict --law law.json wsd.yaml cosine.yaml
    trainplan predict --law law.json wsd.yaml --steps 50000 --html loss.html
    trainplan predict wsd.yaml cosine.yaml --steps 3000      without a law: the embedded example
    A plan that the fitted curves say nothing about is refused, with the reason.
    """  # noqa: D301  (Click wants the control character, not a backslash)
    from trainplan import laws
    from trainplan.laws.law import length_of
    from trainplan.plan import Plan

    console = Console()
    predictor, is_example = law_of(law, console)
    loaded = [_with_steps(Plan.load(path), steps) for path in plans]
    if is_example:
        loaded = [with_peak_of(predictor, plan, console) for plan in loaded]
    ranked = laws.rank(predictor, loaded, level=level, anyway=anyway)
    ahead = {
        plan.name or "": predictor.predict(
            plan, steps=length_of(plan, None), level=level, anyway=anyway
        )
        for plan in loaded
    }
    width = max(20, min(60, console.width - 30))
    for row in ranked:
        line = blocks(_resampled(ahead[row.name].loss, width))
        console.print(f"{row.name:>16}  {line}", highlight=False, no_wrap=True, markup=False)
    console.print(rank_table(ranked, level))
    for name, prediction in ahead.items():
        for reason in prediction.outside:
            console.print(f"{name}: the curves cannot tell: {reason}", style="red", markup=False)
    if html is not None:
        write_page(ahead, html)
        console.print(f"Drawn into {html}", highlight=False)


def _with_steps(plan: Plan, steps: int | None) -> Plan:
    return plan if steps is None else plan.replace(horizon=steps)


def _resampled(values: Any, width: int) -> Any:
    import numpy as np

    return np.interp(np.linspace(0, 1, width), np.linspace(0, 1, len(values)), values)


def rank_table(ranked: list[Ranked], level: float) -> Table:
    """Plans from the best to the worst."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("plan")
    table.add_column("final loss", justify="right")
    table.add_column(f"{level:.0%} band", justify="right")
    table.add_column("behind the best")
    for i, row in enumerate(ranked):
        behind = "best" if i == 0 else str(row.behind)
        table.add_row(row.name, f"{row.loss:.4f}", f"{row.low:.4f} to {row.high:.4f}", behind)
    return table


def write_page(ahead: dict[str, Prediction], path: Path) -> None:
    """One self-contained page with the curves and their bands."""
    from trainplan.files import write_atomically

    go = require("plotly.graph_objects", extra="lab")
    colors = require("plotly.colors", extra="lab").qualitative.Safe
    figure = go.Figure()
    for i, (name, p) in enumerate(ahead.items()):
        color = colors[i % len(colors)]
        common = {"x": p.steps, "legendgroup": name, "line": {"color": color}}
        edge = {**common, "line": {"width": 0}, "showlegend": False, "hoverinfo": "skip"}
        fill = {"fill": "tonexty", "fillcolor": color.replace("rgb", "rgba").replace(")", ", 0.2)")}
        figure.add_trace(go.Scatter(y=p.high, **edge))
        figure.add_trace(go.Scatter(y=p.low, **edge, **fill))
        figure.add_trace(go.Scatter(y=p.loss, name=name, **common))
    figure.update_layout(
        title="Predicted loss",
        xaxis_title="step",
        yaxis_title="loss (nats)",
        template="simple_white",
    )
    write_atomically(path, figure.to_html(include_plotlyjs=True, full_html=True))
