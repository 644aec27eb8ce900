"""``trainplan fit``: from loss curves to a law that predicts others."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trainplan.commands._law import EXAMPLE

if TYPE_CHECKING:
    from trainplan.laws.curves import Curve
    from trainplan.laws.predictor import Predictor


def fit(
    curves: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[CURVES ...]",
            help="Logs: trainer_state.json, TensorBoard, MLflow or wandb directories and exports, "
            "Lightning's metrics.csv, CSV, JSON or JSONL tables, directories of trainplan "
            "compare. Without any: the embedded example.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write the law.")] = Path(
        "law.json"
    ),
    law: Annotated[
        str,
        typer.Option(
            help="auto (all, weighed), concave, functional, multi_power, annealing or power."
        ),
    ] = "auto",
    loss: Annotated[
        str | None, typer.Option(help="Column of the loss (default: a usual name).")
    ] = None,
    rate: Annotated[
        str | None, typer.Option(help="Column of the learning rate (default: a usual name).")
    ] = None,
    step: Annotated[
        str | None, typer.Option(help="Column that counts steps (default: a usual name).")
    ] = None,
    run: Annotated[
        list[str] | None, typer.Option("--run", help="Take only this run of a file; repeatable.")
    ] = None,
    hold_out: Annotated[
        list[str] | None,
        typer.Option(
            "--hold-out", metavar="RUN", help="Predict this run instead of fitting it; repeatable."
        ),
    ] = None,
    plan: Annotated[
        Path | None, typer.Option(help="Plan file with the rate, if it was not logged.")
    ] = None,
    warmup: Annotated[
        int | None, typer.Option(min=0, help="First step after warm-up (default: found).")
    ] = None,
) -> None:
    """Fit a law to loss curves, so that other schedules can be predicted.

    \b
    trainplan fit constant.csv cosine.csv --out law.json
    trainplan fit output/ --loss eval_loss           a Transformers output directory
    trainplan fit runs.csv --run a --run b           some runs of an export
    trainplan fit runs/compare-1 --hold-out wsd      check the law on a run it has not seen
    trainplan fit                                    without data: the embedded example
    Best are two curves of one peak rate: a constant one and one with a decay.
    """  # noqa: D301  (Click wants the control character, not a backslash)
    from trainplan import laws
    from trainplan.laws.loading import matching

    console = Console()
    if curves:
        found = laws.load(
            *curves, loss=loss, rate=rate, step=step, plan=plan, warmup=warmup, runs=run or None
        )
    else:
        console.print(EXAMPLE, style="yellow", highlight=False, soft_wrap=True)
        found = laws.example(*(run or ()))
    held = matching([curve.name for curve in found], hold_out or ())
    fitted = [curve for curve in found if curve.name not in held]
    if not fitted:
        raise laws.CurveError("no run is left to fit a law to", place="--hold-out", value=held)
    console.print(curve_table(fitted))
    for curve in found:
        for note in curve.notes:
            console.print(f"{curve.name}: {note}", style="dim", highlight=False, markup=False)
    predictor = laws.fit(law, fitted)
    predictor.save(out)
    console.print(law_table(predictor))
    if len(fitted) == 1:
        console.print(
            "One curve hardly tells progress from what the rate does, so bands are wide. A second "
            "one under another schedule, of the same peak, helps most.",
            highlight=False,
        )
    if held:
        console.print("Runs that the law has not seen:")
        console.print(held_out_table(predictor, [c for c in found if c.name in held]))
    console.print(f"Written to {out}.  Next:  trainplan predict --law {out} PLAN.yaml")


def held_out_table(predictor: Predictor, curves: list[Curve]) -> Table:
    """Predicted and measured losses of curves that were not fitted."""
    from trainplan.laws import OutsideEvidenceError

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("curve")
    for name in ("predicted", "80% band", "measured", "error", "mean error %"):
        table.add_column(name, justify="right")
    for curve in curves:
        points = curve.between(curve.warmup + 1, math.inf)
        try:
            ahead = predictor.predict(curve.rates[: curve.last + 1], at=points.steps)
        except OutsideEvidenceError as error:
            table.add_row(curve.name, f"[red]{escape(error.problem)}[/]")
            continue
        mean = 100 * float(abs(ahead.loss / points.loss - 1).mean())
        table.add_row(
            escape(curve.name),
            f"{ahead.loss[-1]:.4f}",
            f"{ahead.low[-1]:.4f} to {ahead.high[-1]:.4f}",
            f"{points.loss[-1]:.4f}",
            f"{points.loss[-1] - ahead.loss[-1]:+.4f}",
            f"{mean:.2f}",
        )
    return table


def curve_table(curves: list[Curve]) -> Table:
    """What was read."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("curve", "points", "steps", "warm-up", "peak rate", "last loss", "noise %"):
        table.add_column(name, justify="left" if name == "curve" else "right")
    for c in curves:
        cells = (
            len(c),
            c.last,
            c.warmup,
            f"{c.peak:g}",
            f"{c.loss[-1]:.4f}",
            f"{100 * c.noise:.2f}",
        )
        table.add_row(escape(c.name), *map(str, cells))
    return table


def law_table(predictor: Predictor) -> Table:
    """The laws, their shares and parameters."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("law")
    table.add_column("share", justify="right")
    table.add_column("held-out error %", justify="right")
    table.add_column("parameters")
    errors = predictor.held_out or (math.nan,) * len(predictor.laws)
    for law, weight, error in zip(predictor.laws, predictor.weights, errors, strict=True):
        values = ", ".join(f"{name}={getattr(law, name):.4g}" for name in law.units)
        shown = "-" if math.isnan(error) else f"{100 * error:.2f}"
        table.add_row(law.kind, f"{weight:.0%}", shown, values)
    return table
