"""``trainplan show``: what a plan does, in numbers, as a line of blocks, or as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from trainplan._extras import require
from trainplan.errors import PlanError
from trainplan.plan import Plan
from trainplan.schedules.base import Schedule
from trainplan.schedules.controllers import Controller
from trainplan.schedules.drawing import blocks


def show(
    plan: Annotated[Path, typer.Argument(help="A plan file.", show_default=False)],
    points: Annotated[
        int, typer.Option("--points", "-n", min=2, max=10_000, help="How many rows of values.")
    ] = 11,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", help="Draw the knobs into a file (.png, .svg or .pdf)."),
    ] = None,
    horizon: Annotated[
        float | None, typer.Option(help="Show the plan at another horizon than its own.")
    ] = None,
) -> None:
    """Show the values of a plan over its run.

    \b
    trainplan show plan.yaml                 a table and a line of blocks for each knob
    trainplan show plan.yaml --points 101    more rows
    trainplan show plan.yaml --plot lr.png   a picture
    """  # noqa: D301  (Click wants the control character, not a backslash)
    loaded = Plan.load(plan)
    if horizon is not None:
        loaded = loaded.replace(horizon=horizon)
    console = Console()
    times, columns = sample(loaded, points)
    console.print(f"[bold]{loaded.name}[/]  digest {loaded.digest}", highlight=False)
    for name, knob in loaded.ready.items():
        if isinstance(knob, Controller) and not isinstance(knob, Schedule):
            console.print(f"{name}: decided while training, starts at {knob.value(0):.6g}")
    width = max(20, min(72, console.width - 14))
    _, fine = sample(loaded, width)
    for name, values in fine.items():
        console.print(f"{name:>12}  {blocks(values)}", highlight=False, no_wrap=True)
    console.print(value_table(loaded, times, columns))
    if plot is not None:
        draw(loaded, plot)
        console.print(f"Drawn into {plot}", highlight=False)


def sample(plan: Plan, points: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Times over the horizon, and the values there of each number that is known beforehand.

    Returns:
        Times (points,), and by name the values (points,). In a plan that counts steps, times are
        whole and the last is that of the last update.
    """
    length = plan.horizon
    if length is None:
        raise PlanError(
            "the plan has no horizon to show",
            place="horizon",
            value=None,
            remedy="Put one into the file, or use --horizon",
        )
    times = np.linspace(0, length - 1 if plan.unit == "steps" else length, points)
    if plan.unit == "steps":
        times = np.unique(np.round(np.maximum(times, 0)))
    columns: dict[str, np.ndarray] = {}
    for name, knob in plan.ready.items():
        parts: tuple[Any, ...] = knob if isinstance(knob, tuple) else (knob,)
        for i, part in enumerate(parts):
            if isinstance(part, Schedule):
                columns[f"{name}[{i}]" if len(parts) > 1 else name] = np.asarray(part(times))
    return times, columns | seen(plan, times)


def seen(plan: Plan, times: np.ndarray) -> dict[str, np.ndarray]:
    """What the plan says of the data at some times: open share, data sets, shapes, batch size."""
    data = plan.ready_data
    if data is None:
        return {}
    opened = data.open_share(times)
    columns = {} if opened is None else {"open": opened}
    columns |= {f"share {name}": share for name, share in data.shares(times).items()}
    return columns | data.sizes(times)


def value_table(plan: Plan, times: np.ndarray, columns: dict[str, np.ndarray]) -> Table:
    """Times and values as a table for the terminal."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(plan.unit, justify="right")
    for name in columns:
        table.add_column(name, justify="right")
    for i, t in enumerate(times):
        table.add_row(f"{t:,.6g}", *(f"{values[i]:.6g}" for values in columns.values()))
    return table


def draw(plan: Plan, path: Path) -> None:
    """Draw every knob that changes into one picture."""
    figure_module = require("matplotlib.figure", extra="plot")
    times, columns = sample(plan, 2000)
    moving = {n: v for n, v in columns.items() if np.ptp(v) > 0} or columns
    figure = figure_module.Figure(figsize=(8, 1.2 + 2.0 * len(moving)), layout="constrained")
    axes = figure.subplots(len(moving), 1, sharex=True, squeeze=False)[:, 0]
    for ax, (name, values) in zip(axes, moving.items(), strict=True):
        ax.plot(times, values, color="#3457d5", linewidth=1.8)
        ax.set_ylabel(name)
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25)
        ax.margins(x=0)
    axes[0].set_title(plan.name or "plan", loc="left")
    axes[-1].set_xlabel(plan.unit)
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise PlanError(
            f"cannot draw: {error}", place="--plot", value=str(path), remedy="Use .png or .svg"
        ) from None
