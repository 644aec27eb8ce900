"""``trainplan refine``: the next run's learning rate from the gradient norms of the last one."""

from __future__ import annotations

import shlex
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console

from trainplan._extras import require
from trainplan.errors import PlanError
from trainplan.plan import Plan
from trainplan.schedules.drawing import blocks

if TYPE_CHECKING:
    from trainplan.lab.refining import Recorded


def refine(
    run: Annotated[
        Path,
        typer.Argument(
            help="The directory of a comparison made with --record-grad-norms, or a CSV or JSONL "
            "file with columns step and norm.",
            show_default=False,
        ),
    ],
    arm: Annotated[
        str | None,
        typer.Option(help="Whose norms (default: the only arm, or the one called linear)."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="One seed's norms (default: the mean).")] = None,
    plan: Annotated[
        Path | None, typer.Option(metavar="OLD.yaml", help="The plan that a logged run followed.")
    ] = None,
    peak: Annotated[
        float | None, typer.Option(help="Peak learning rate (default: that of the old plan).")
    ] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="adam (L1 norms, the default) or sgd (L2 norms).")
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="The column that holds the norms, in a file.")
    ] = None,
    tau: Annotated[
        float, typer.Option(min=0, max=0.49, help="Share of the run that smoothing spans.")
    ] = 0.1,
    horizon: Annotated[
        int | None, typer.Option(min=1, help="Length of the run (default: that of the old plan).")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The new plan.")] = Path("refined.yaml"),
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The picture (default: OUT with .png)."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are there already.")
    ] = False,
) -> None:
    """Refine a plan: compute the next run's learning rate from the last one's gradient norms.

    \b
    trainplan compare --record-grad-norms --out runs/first
    trainplan refine runs/first
    trainplan refine norms.csv --plan old.yaml --optimizer sgd

    Writes the new plan and a picture of it over the old one.
    """  # noqa: D301  (Click wants the control character, not a backslash)
    from trainplan.lab import refining

    picture = plot or out.with_suffix(".png")
    for path in (out, picture):
        if path.exists() and not overwrite:
            remedy = "Choose another name with --out, or replace it with --overwrite"
            raise PlanError("this file is there already", place=str(path), remedy=remedy)
    recorded = _recorded(run, arm, seed, plan, optimizer, column)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        new = refining.refined_plan(recorded, peak=peak, tau=tau, horizon=horizon)
    old = refining.old_rates(recorded)
    draw(new, old, recorded, picture)
    new.save(out)
    console = Console()
    _tell(console, new, old, recorded)
    for note in (*recorded.notes, *(str(warning.message) for warning in caught)):
        console.print(f"Note: {note}", style="yellow", highlight=False, markup=False)
    _say_next(console, recorded, out, picture)


def draw(plan: Plan, old: npt.NDArray[np.float64], recorded: Recorded, path: Path) -> None:
    """Draw the new learning rate over the old one, and the norms below.

    Raises:
        PlanError: If the picture cannot be written.
    """
    figures = require("matplotlib.figure", extra="plot")
    times, values = plan.curve("lr", 1000)
    figure = figures.Figure(figsize=(8, 5), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    end = float(plan.horizon or times[-1])
    if old.size:
        top.plot(np.linspace(0, end, old.size), old, color="#9aa0a6", linewidth=1.6, label="before")
    top.plot(times, values, color="#3457d5", linewidth=1.8, label="refined")
    top.set_ylabel("lr")
    top.legend(frameon=False)
    top.set_title(plan.name or "refined", loc="left")
    norms = recorded.norms
    bottom.plot(np.linspace(0, end, norms.size), norms, color="#c2571a", linewidth=0.8)
    if (norms > 0).all():
        bottom.set_yscale("log")
    bottom.set_ylabel("L1 norm" if recorded.optimizer == "adam" else "L2 norm")
    bottom.set_xlabel(plan.unit)
    for axes in (top, bottom):
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0)
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        remedy = "Use .png, .svg or .pdf in a folder that is there"
        raise PlanError(
            f"cannot draw: {error}", place="--plot", value=str(path), remedy=remedy
        ) from None


def _recorded(
    run: Path,
    arm: str | None,
    seed: int | None,
    plan: Path | None,
    optimizer: str | None,
    column: str | None,
) -> Recorded:
    from trainplan.lab import refining

    of_directory, of_file = {"--arm": arm, "--seed": seed}, {"--plan": plan, "--column": column}
    is_run = (run / "manifest.json").is_file()
    for name, value in (of_file if is_run else of_directory).items():
        if value is not None:
            kind = "a logged file" if is_run else "the directory of a comparison"
            raise PlanError(
                f"belongs to {kind}", place=name, value=str(value), remedy="Leave it out"
            )
    if is_run:
        return refining.recorded_by_the_lab(run, arm=arm, seed=seed, optimizer=optimizer)
    old = None if plan is None else Plan.load(plan)
    return refining.recorded_in_a_log(run, plan=old, optimizer=optimizer or "adam", column=column)


def _tell(console: Console, new: Plan, old: npt.NDArray[np.float64], recorded: Recorded) -> None:
    kind = "L1 norms, for Adam" if recorded.optimizer == "adam" else "L2 norms, for SGD"
    console.print(
        f"From {recorded.norms.size} gradient norms: {recorded.origin} ({kind})", highlight=False
    )
    width = max(20, min(72, console.width - 14))
    for name, values in (("before", old), ("refined", new.curve("lr", 1000)[1])):
        if values.size:
            places = np.linspace(0, values.size - 1, width).round().astype(int)
            console.print(f"{name:>12}  {blocks(values[places])}", highlight=False, no_wrap=True)
    values = new.curve("lr", 1000)[1]
    highest, middle = int(values.argmax()), values[values.size // 2] / values.max()
    console.print(
        f"The rate is highest ({values.max():.3g}) after {highest / 10:.0f} % of the run, and at "
        f"half-way {100 * middle:.0f} % of that.",
        highlight=False,
    )


def _say_next(console: Console, recorded: Recorded, out: Path, picture: Path) -> None:
    command = f"trainplan show {shlex.quote(str(out))}"
    if recorded.command:
        command = recorded.command.replace("REFINED", shlex.quote(str(out)))
    for line in (
        f"Plan: {out}   Picture: {picture}",
        "Next: the peak has to be tuned again, and the gain measured, on the same length, batch "
        "size and optimizer:",
        f"  {command}",
    ):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
